/// Paths to values in JSON, as a tree of keys.
///
/// A path is keys with points between them. Arrays do not appear in it: what is in an array is
/// where the array is. Keys are compared without regard to case.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    nodes: Vec<Node>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    children: Vec<(Box<[u8]>, usize)>,
    targets: Vec<usize>,
}

impl Paths {
    /// The node of a whole text.
    pub(super) const ROOT: usize = 0;

    /// No path.
    pub(super) fn new() -> Self {
        Self { nodes: vec![Node::default()] }
    }

    /// Adds a path that leads to `target`.
    pub(super) fn add(&mut self, path: &str, target: usize) {
        let mut node = Self::ROOT;
        for key in path.split('.') {
            node = match self.child(node, key.as_bytes()) {
                Some(child) => child,
                None => {
                    let child = self.nodes.len();
                    self.nodes.push(Node::default());
                    self.nodes[node].children.push((key.as_bytes().into(), child));
                    child
                }
            };
        }
        self.nodes[node].targets.push(target);
    }

    pub(super) fn child(&self, node: usize, key: &[u8]) -> Option<usize> {
        let children = &self.nodes[node].children;
        children.iter().find(|(own, _)| own.eq_ignore_ascii_case(key)).map(|(_, child)| *child)
    }

    pub(super) fn targets(&self, node: usize) -> &[usize] {
        &self.nodes[node].targets
    }

    /// Whether nothing that is asked for lies below.
    pub(super) fn is_leaf(&self, node: usize, is_object: bool) -> bool {
        let Node { children, targets } = &self.nodes[node];
        children.is_empty() && (is_object || targets.is_empty())
    }
}
