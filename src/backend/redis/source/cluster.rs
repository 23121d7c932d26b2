use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use redis::{
    Client, Cmd, ConnectionInfo, IntoConnectionInfo, Pipeline, RedisResult, Value,
    aio::PubSubStream,
    cluster::{ClusterClient, ClusterClientBuilder, NodeAddress},
    cluster_async::ClusterConnection,
    cluster_routing::{Route, RoutingInfo, SingleNodeRoutingInfo, SlotAddr},
};

use super::{
    Source,
    kept::{Kept, SharedConnection},
    server::{CONNECT, addresses_of, prepared, tcp},
    subscribe,
};

/// A cluster, by one connection to each node that all calls share.
///
/// Keys of different slots cannot be decided on in one call: see
/// [`RedisBuilder::tags`](crate::backend::redis::RedisBuilder::tags).
#[derive(Clone)]
pub struct Cluster {
    client: ClusterClient,
    /// Where to ask first: any node passes on what is published at another.
    nodes: Arc<[ConnectionInfo]>,
    kept: Kept<ClusterConnection>,
}

/// redis-rs waits for ever unless told, and each call has a deadline of its own. A node that stands
/// still for a few seconds is borne with, as any server is: to give it up costs the calls to all
/// others their connections too. One that stays away has lost its slots in three times as long.
const ANSWER: Duration = Duration::from_secs(5);

impl Cluster {
    /// The cluster that the nodes at `urls` belong to; one of them is enough, if it is up.
    ///
    /// # Errors
    ///
    /// A URL is malformed, or they contradict each other.
    pub fn open<T: IntoConnectionInfo>(urls: impl IntoIterator<Item = T>) -> RedisResult<Self> {
        Self::mapped(urls, HashMap::new())
    }

    /// The same where nodes are reached at other addresses than they tell: behind a port mapping.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn mapped<T: IntoConnectionInfo>(
        urls: impl IntoIterator<Item = T>,
        addresses: HashMap<NodeAddress, NodeAddress>,
    ) -> RedisResult<Self> {
        let nodes = urls.into_iter().map(prepared).collect::<RedisResult<Vec<_>>>()?;
        Self::of(nodes, addresses, |builder| builder)
    }

    /// The same with certificates of an authority of your own, or one that a client shows. Nodes
    /// tell their addresses as numbers unless their settings have a name for them: where
    /// certificates are for names, `addresses` leads from one to the other. It may be empty.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), if a URL is not one of `rediss://`, and if the certificates are
    /// malformed.
    #[cfg(feature = "redis-tls")]
    pub fn encrypted<T: IntoConnectionInfo>(
        urls: impl IntoIterator<Item = T>,
        addresses: HashMap<NodeAddress, NodeAddress>,
        certificates: &redis::TlsCertificates,
    ) -> RedisResult<Self> {
        let trusting = |url: T| {
            let client = Client::build_with_tls(prepared(url)?, certificates.clone())?;
            Ok(client.get_connection_info().clone())
        };
        let nodes = urls.into_iter().map(trusting).collect::<RedisResult<Vec<_>>>()?;
        Self::of(nodes, addresses, |builder| builder.certs(certificates.clone()))
    }

    fn of(
        nodes: Vec<ConnectionInfo>,
        addresses: HashMap<NodeAddress, NodeAddress>,
        with: impl FnOnce(ClusterClientBuilder) -> ClusterClientBuilder,
    ) -> RedisResult<Self> {
        let (first, kept) = (nodes.as_slice().into(), Kept::new(addresses_of(&nodes)));
        // Its own retries repeat what may have been executed. Ours do not.
        let mut builder = ClusterClientBuilder::new(nodes)
            .retries(0)
            .connection_timeout(CONNECT)
            .response_timeout(ANSWER)
            .tcp_settings(tcp());
        if !addresses.is_empty() {
            builder = builder.node_address_map(addresses);
        }
        Ok(Self { client: with(builder).build()?, nodes: first, kept })
    }

    fn open_another(&self) -> impl Future<Output = RedisResult<ClusterConnection>> + use<> {
        let client = self.client.clone();
        async move { client.get_async_connection().await }
    }
}

impl Source for Cluster {
    type Connection = SharedConnection<ClusterConnection>;

    const HAS_SLOTS: bool = true;

    async fn connection(&self) -> RedisResult<Self::Connection> {
        self.kept.get(|| self.open_another()).await
    }

    fn id(&self) -> Option<usize> {
        Some(self.kept.id())
    }

    fn lost(&self, connection: &Self::Connection) {
        self.kept.lose(connection);
    }

    fn number(&self, connection: &Self::Connection) -> u64 {
        connection.number()
    }

    fn heard(&self, connection: u64, slot: u16, key: &[u8], is_answered: bool) {
        let another = || {
            let opening = self.open_another();
            let mut get = redis::cmd("GET");
            get.arg(key);
            async move {
                let mut opened = opening.await?;
                // Whoever has the key by now says so; others say where it is. A connection that
                // does not find it is of no use, and would keep those who ask other nodes waiting
                // while it looks for this one.
                to_slot(&mut opened, slot, get).await?.extract_error()?;
                Ok(opened)
            }
        };
        self.kept.heard(connection, slot, is_answered, another);
    }

    fn is_replaced(&self, connection: u64) -> bool {
        self.kept.is_replaced(connection)
    }

    async fn send_to(
        &self,
        connection: &mut Self::Connection,
        slot: u16,
        command: Cmd,
    ) -> RedisResult<Value> {
        to_slot(&mut connection.connection, slot, command).await
    }

    async fn send_asking(
        &self,
        connection: &mut Self::Connection,
        address: &str,
        commands: Pipeline,
    ) -> Option<RedisResult<Value>> {
        to_address(&mut connection.connection, address, commands).await
    }

    async fn listen(&self, channel: String) -> RedisResult<Option<PubSubStream>> {
        let mut failure = None;
        for node in &*self.nodes {
            let opened = async { subscribe(&Client::open(node.clone())?, channel.clone()).await };
            match opened.await {
                Ok(messages) => return Ok(messages),
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(None), Err)
    }
}

impl Source for ClusterConnection {
    type Connection = Self;

    const HAS_SLOTS: bool = true;

    async fn connection(&self) -> RedisResult<Self> {
        Ok(self.clone())
    }

    async fn send_to(&self, connection: &mut Self, slot: u16, command: Cmd) -> RedisResult<Value> {
        to_slot(connection, slot, command).await
    }

    async fn send_asking(
        &self,
        connection: &mut Self,
        address: &str,
        commands: Pipeline,
    ) -> Option<RedisResult<Value>> {
        to_address(connection, address, commands).await
    }
}

pub(super) async fn to_slot(
    connection: &mut ClusterConnection,
    slot: u16,
    command: Cmd,
) -> RedisResult<Value> {
    let route = Route::new(slot, SlotAddr::Master);
    let routing = RoutingInfo::SingleNode(SingleNodeRoutingInfo::SpecificNode(route));
    connection.route_command(command, routing).await
}

pub(super) async fn to_address(
    connection: &mut ClusterConnection,
    address: &str,
    commands: Pipeline,
) -> Option<RedisResult<Value>> {
    let (host, port) = address.rsplit_once(':')?;
    let (host, port) = (host.to_owned(), port.parse().ok()?);
    let count = commands.len();
    let route = SingleNodeRoutingInfo::ByAddress { host, port };
    let answers = connection.route_pipeline(commands, 0, count, route).await;
    Some(answers.and_then(|mut answers| answers.pop().unwrap_or(Value::Nil).extract_error()))
}

/// Without the addresses: they may have passwords in them.
impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").finish_non_exhaustive()
    }
}
