use std::{collections::HashMap, future::Future, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::id::RequestId;

/// Who waits in this process for the end of a request. What another process brings about is not heard
/// here: who waits looks, too.
#[derive(Clone, Debug, Default)]
pub(super) struct Ends(Arc<Mutex<Watched>>);

type Watched = HashMap<RequestId, (Arc<Notify>, usize)>;

impl Ends {
    /// Begins to listen for the end of a request.
    pub(super) fn watch(&self, id: RequestId) -> Watch {
        let mut watched = self.0.lock();
        let (news, watchers) = watched.entry(id).or_default();
        *watchers += 1;
        Watch { ends: self.clone(), id, news: Arc::clone(news) }
    }

    /// A request has ended, or has been canceled.
    pub(super) fn tell(&self, id: &RequestId) {
        if let Some((news, _)) = self.0.lock().get(id) {
            news.notify_waiters();
        }
    }
}

/// One who waits.
pub(super) struct Watch {
    ends: Ends,
    id: RequestId,
    news: Arc<Notify>,
}

impl Watch {
    /// Is over when somebody tells of the end. It hears of what is told from now on.
    pub(super) fn told(&self) -> impl Future<Output = ()> + '_ {
        self.news.notified()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watched = self.ends.0.lock();
        if let Some((_, watchers)) = watched.get_mut(&self.id) {
            *watchers -= 1;
            if *watchers == 0 {
                watched.remove(&self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_of_those_who_have_waited() {
        let ends = Ends::default();
        let (one, other) = (RequestId::from_bytes([1; 16]), RequestId::from_bytes([2; 16]));
        let watches = [ends.watch(one), ends.watch(other), ends.watch(one)];
        assert_eq!(ends.0.lock().len(), 2);
        drop(watches);
        assert_eq!(ends.0.lock().len(), 0);
    }
}
