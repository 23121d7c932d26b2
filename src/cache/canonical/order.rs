use std::ops::Range;

/// A member of an object: where its name stands, and where its value ends.
pub(super) struct Member {
    pub(super) start: u32,
    pub(super) name_end: u32,
    pub(super) end: u32,
}

impl Member {
    /// As it is written, with its quotation marks.
    pub(super) fn name<'t>(&self, text: &'t [u8]) -> &'t [u8] {
        slice(text, self.start, self.name_end)
    }
}

/// Which members stand in another place than they were read, of the objects where that is so. No
/// tree: a text of many small values costs little more than its bytes.
#[derive(Default)]
pub(super) struct Order {
    objects: Vec<Object>,
    /// Their members, from the start of the name to the end of the value, in the order that they
    /// are to have.
    members: Vec<(u32, u32)>,
}

struct Object {
    start: u32,
    end: u32,
    first: u32,
    count: u32,
}

impl Order {
    /// The object that is written there is to have these members.
    pub(super) fn put(&mut self, place: Range<u32>, members: &[Member]) {
        // Each member is longer than one byte of a text whose places fit.
        let count = |length: usize| u32::try_from(length).expect("members are fewer than bytes");
        let (first, count) = (count(self.members.len()), count(members.len()));
        self.members.extend(members.iter().map(|member| (member.start, member.end)));
        self.objects.push(Object { start: place.start, end: place.end, first, count });
    }

    /// The text, with the members of all objects in their order.
    pub(super) fn of(mut self, text: Vec<u8>) -> Vec<u8> {
        if self.objects.is_empty() {
            return text;
        }
        // They were put when they ended.
        self.objects.sort_unstable_by_key(|object| object.start);
        let mut out = Vec::with_capacity(text.len());
        self.write(&text, 0, text.len() as u32, &mut out);
        out
    }

    /// Writes a piece of the text. It goes as deep as the text is nested.
    fn write(&self, text: &[u8], start: u32, end: u32, out: &mut Vec<u8>) {
        let mut at = start;
        loop {
            let next = self.objects.partition_point(|object| object.start < at);
            let Some(object) = self.objects.get(next).filter(|object| object.start < end) else {
                break;
            };
            out.extend_from_slice(slice(text, at, object.start));
            out.push(b'{');
            let first = object.first as usize;
            let members = &self.members[first..first + object.count as usize];
            for (index, (start, end)) in members.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                self.write(text, *start, *end, out);
            }
            out.push(b'}');
            at = object.end;
        }
        out.extend_from_slice(slice(text, at, end));
    }
}

fn slice(text: &[u8], start: u32, end: u32) -> &[u8] {
    &text[start as usize..end as usize]
}
