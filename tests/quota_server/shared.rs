//! Several quota servers over one Redis.

#[path = "../support/servers/mod.rs"]
pub(crate) mod servers;

use tower_quota::{
    PolicyName,
    backend::redis::{RedisBuilder, Server},
    quota_service::{QuotaService, envoy::proto::Code},
};

use crate::support::{Client, descriptor, request, told, with_hits};

const RULES: &str = r#"
    domain = "edge"
    descriptors = [
        { key = "user", rate_limit = { quota = "40/30 days", algorithm = "token-bucket" } },
        { key = "team", rate_limit = { quota = "30/30 days", algorithm = "sliding-window" } },
        { key = "all", rate_limit = { unit = "year", requests_per_unit = 1_000 } },
    ]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_admit_what_one_does() {
    let redis = servers::Standalone::start();
    let servers = [(); 2].map(|()| {
        let server = Server::open(redis.url().as_str()).expect("an address");
        let backend = RedisBuilder::new(server, PolicyName::from_static("quota-service"))
            .timeout(std::time::Duration::from_secs(30))
            .build();
        QuotaService::new(RULES.parse().expect("rules"), backend)
    });
    let clients = [Client::of(&servers[0]).await, Client::of(&servers[1]).await];
    let mut asked = Vec::new();
    for number in 0..60 {
        let client = clients[number % 2].clone();
        asked.push(tokio::spawn(async move {
            let each = [
                descriptor(&[("user", "alice")]),
                descriptor(&[("team", "red")]),
                descriptor(&[("all", "")]),
            ];
            told(&client.ask(request("edge", each)).await).0
        }));
    }
    let mut admitted = 0;
    for asked in asked {
        admitted += usize::from(asked.await.expect("an answer") == Code::Ok);
    }
    // At most the smallest limit. Those that lose a race for one limit are given back what they have of the
    // others: 40 have one of hers and 30 one of the team's, so that 10 of the 60 have both, whoever comes first.
    assert!((10..=30).contains(&admitted), "{admitted} were admitted");
    let look = [("user", 40), ("team", 30), ("all", 1_000)].map(|(key, limit)| {
        let value = ["alice", "red", ""][usize::from(limit != 40) + usize::from(limit == 1_000)];
        with_hits(descriptor(&[(key, value)]), 0)
    });
    let left: Vec<_> = told(&clients[0].ask(request("edge", look)).await).1;
    let left: Vec<_> = left.into_iter().map(|(_, left)| left as usize).collect();
    assert_eq!(left, [40 - admitted, 30 - admitted, 1_000 - admitted]);

    // Nothing of what was asked can be read there.
    let keys: Vec<String> = redis.ask(&["KEYS", "*"]);
    assert!(keys.len() >= 3 && keys.iter().all(|key| !key.contains("alice")), "{keys:?}");

    // A server that is gone is no verdict. (Of a key that lost a race the refusal is remembered.)
    redis.kill();
    let refused = clients[0].refused(request("edge", [descriptor(&[("user", "bob")])])).await;
    assert_eq!(refused, tonic::Code::Unavailable);
}
