//! Where what was used is: in this process, or on a server that all instances share.

use std::time::Duration;

use tokio::time::timeout;
use tower::BoxError;
use tower_quota::{
    PolicyName,
    algorithm::{Plan, Portion},
    backend::{
        DynBackend, GuardedBuilder, Local,
        guarded::Fallback,
        redis::{RedisBuilder, Server},
        tracked::{Calls, Tracked},
    },
    upstream::Board,
};

use crate::{config::State, store::Store};

/// It is chosen at the start, and stays.
#[derive(Debug)]
pub(crate) struct Home {
    state: State,
    /// What is on its way to the server.
    calls: Calls,
    /// How the server is found.
    pub(crate) store: Store,
}

impl Home {
    pub(crate) fn new(state: State) -> Self {
        Self { state, calls: Calls::new(), store: Store::default() }
    }

    /// The states of one account, or of one plan.
    pub(crate) fn backend(&self, name: &str) -> Result<DynBackend<Plan>, BoxError> {
        let Some(server) = self.server()? else { return Ok(DynBackend::new(Local::new())) };
        let timeout = self.state.timeout;
        let redis = RedisBuilder::new(server, PolicyName::new(name.to_owned())?);
        let redis = redis.timeout(timeout).build();
        let share = Fallback::LocalShare(Portion::of(self.state.instances)?);
        let guarded = GuardedBuilder::new(share).timeout(timeout).build(redis);
        let backend = DynBackend::new(Tracked::new(guarded.clone(), &self.calls));
        self.store.watch(name, guarded, backend.clone());
        Ok(backend)
    }

    /// Where it is told what providers say: to all instances, or to this one.
    pub(crate) fn board(&self, name: &str) -> Result<Board, BoxError> {
        let Some(server) = self.server()? else { return Ok(Board::new()) };
        Ok(Board::shared(server, PolicyName::new(name.to_owned())?))
    }

    /// Waits until what calls came to is written, for a while.
    pub(crate) async fn written(&self) {
        // Each of them has its time-out.
        let patience = self.state.timeout * 2 + PATIENCE;
        if timeout(patience, self.calls.ended()).await.is_err() {
            eprintln!(
                "{} corrections are not written: they count as reserved",
                self.calls.under_way()
            );
        }
    }

    fn server(&self) -> Result<Option<Server>, BoxError> {
        let Some(url) = &self.state.redis else { return Ok(None) };
        // The error would tell the URL, which may hold a password.
        let server = Server::open(url.expose()).map_err(|_| "the Redis URL is not understood")?;
        Ok(Some(server))
    }
}

/// What a busy machine may need besides.
const PATIENCE: Duration = Duration::from_secs(5);
