//! The servers that we tell people to start.

use tower_quota::{BackendErrorKind, backend::redis::Eviction};

use super::{
    checks::check,
    servers::{Flavor, Standalone},
};

/// The quoted words of the command in the compose file, without the program.
fn arguments_of_the_compose_file() -> Vec<&'static str> {
    let file = include_str!("../../examples/shared_quota/compose.yaml");
    let (_, list) = file.split_once("command: [").expect("it has a command");
    let (list, _) = list.split_once("\n    ]").expect("the list ends");
    let lines = list.lines().filter(|line| !line.trim_start().starts_with('#'));
    let mut words = lines.flat_map(|line| line.split('"').skip(1).step_by(2));
    assert_eq!(words.next(), Some("redis-server"));
    words.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_of_the_compose_file_decides_and_keeps_its_keys() {
    for flavor in Flavor::ALL {
        let server = Standalone::start_with(flavor, &arguments_of_the_compose_file());
        let checked = check(&server.url_of("quota", "change-me")).await.expect("it decides");
        assert_eq!(checked.eviction, Eviction::Unknown, "its user may not ask");
        let checked = check(&server.url()).await.expect("it decides");
        assert_eq!(checked.eviction, Eviction::Never);
        let setting = |name| server.ask::<Vec<String>>(&["CONFIG", "GET", name])[1].clone();
        assert_eq!(setting("maxmemory"), (256 << 20).to_string());
        assert_eq!(
            (setting("appendonly"), setting("appendfsync")),
            ("yes".into(), "everysec".into())
        );
        assert_eq!(setting("save"), "");
        let forbidden = server.url_of("quota", "another");
        assert_eq!(check(&forbidden).await, Err(BackendErrorKind::Unauthorized));
    }
}
