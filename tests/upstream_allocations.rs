//! What it costs to watch a stream as it passes: nothing that has to be allocated.

#[path = "../benches/support/counting.rs"]
mod counting;
#[path = "../benches/support/streams.rs"]
mod streams;

use self::streams::{FORMS, Stream, Watched};

#[test]
fn a_chunk_that_is_watched_allocates_nothing() {
    for form in &FORMS {
        let stream = Stream::of(form, 100);
        let mut bare = stream.clone();
        let mut watched = Watched::new(form, &stream).body();
        // The first makes room for what is read of it.
        assert_eq!(streams::next(&mut watched), streams::next(&mut bare));
        for number in 2..100 {
            let before = counting::allocations();
            let chunk = streams::next(&mut watched);
            let allocated = counting::allocations() - before;
            assert_eq!(chunk, streams::next(&mut bare), "it is the same byte for byte");
            assert_eq!(allocated, 0, "chunk {number} of {}", form.profile);
        }
    }
}
