use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{id::RequestId, message::StoredResponse, status::State};

/// Who waits in this process for the end of a request. What another process brings about is not
/// heard here: who waits looks, too.
#[derive(Clone, Debug, Default)]
pub(super) struct Ends(Arc<Mutex<Watched>>);

type Watched = HashMap<RequestId, (Arc<News>, usize)>;

/// How a request has ended, with its answer, so that who waits need not ask the store.
#[derive(Clone, Debug)]
pub(super) struct End {
    pub(super) state: State,
    pub(super) response: Option<StoredResponse>,
}

#[derive(Debug, Default)]
struct News {
    end: OnceLock<End>,
    told: Notify,
}

impl Ends {
    /// Begins to listen for the end of a request.
    pub(super) fn watch(&self, id: RequestId) -> Watch {
        let mut watched = self.0.lock();
        let (news, watchers) = watched.entry(id).or_default();
        *watchers += 1;
        Watch { ends: self.clone(), id, news: Arc::clone(news) }
    }

    /// A request has ended, or has been canceled.
    pub(super) fn tell(&self, id: &RequestId, end: impl FnOnce() -> End) {
        let news = self.0.lock().get(id).map(|(news, _)| Arc::clone(news));
        if let Some(news) = news {
            news.end.get_or_init(end);
            news.told.notify_waiters();
        }
    }
}

/// One who waits.
pub(super) struct Watch {
    ends: Ends,
    id: RequestId,
    news: Arc<News>,
}

impl Watch {
    /// The end, if somebody in this process tells of it. It hears of what was told since the watch
    /// began.
    pub(super) async fn end(&self) -> End {
        loop {
            // From before the look: what is told after it is not missed.
            let told = self.news.told.notified();
            if let Some(end) = self.news.end.get() {
                return end.clone();
            }
            told.await;
        }
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
    use std::pin::pin;

    use futures::FutureExt;

    use super::*;

    #[test]
    fn an_end_is_heard_by_all_who_watch_whether_they_listen_before_or_after() {
        let ends = Ends::default();
        let id = RequestId::from_bytes([1; 16]);
        ends.tell(&id, || unreachable!("nobody watches"));
        let (early, late) = (ends.watch(id), ends.watch(id));
        let mut listens = pin!(early.end());
        assert!(listens.as_mut().now_or_never().is_none());
        ends.tell(&id, || End { state: State::Canceled, response: None });
        for heard in [listens.now_or_never(), late.end().now_or_never()] {
            assert_eq!(heard.map(|end| end.state), Some(State::Canceled));
        }
        assert!(ends.watch(RequestId::from_bytes([2; 16])).end().now_or_never().is_none());
    }

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
