//! Counts what a thread allocates.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    /// Bytes that this thread holds, less those that it was given by others.
    static HELD: Cell<isize> = const { Cell::new(0) };
    static MOST_HELD: Cell<isize> = const { Cell::new(0) };
}

fn hold(more: isize) {
    let held = HELD.get() + more;
    HELD.set(held);
    MOST_HELD.set(MOST_HELD.get().max(held));
}

#[expect(unsafe_code, reason = "an allocator cannot be counted in another way")]
// SAFETY: every method hands its arguments to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        hold(layout.size().cast_signed());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        hold(-layout.size().cast_signed());
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        hold(size.cast_signed() - layout.size().cast_signed());
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often this thread has asked for memory.
pub(crate) fn allocations() -> usize {
    ALLOCATIONS.get()
}

/// The most bytes that this thread has held at a time, beyond what it held before.
#[allow(dead_code, reason = "not all who count allocations count bytes")]
pub(crate) fn most_held(run: impl FnOnce()) -> usize {
    let before = HELD.get();
    MOST_HELD.set(before);
    run();
    usize::try_from(MOST_HELD.get() - before).unwrap_or(0)
}
