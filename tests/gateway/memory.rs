#[cfg(target_os = "linux")]
use std::fs;

use http::StatusCode;

use crate::{
    capture::Capture,
    support::{Gateway, PATIENCE, SECRETS, configuration, on_a_socket, provider},
};

const ALICE: &str = SECRETS[2];

/// The most memory that a process has had so far.
#[cfg(target_os = "linux")]
fn most_memory(gateway: &Gateway) -> usize {
    let status = format!("/proc/{}/status", gateway.pid());
    let status = fs::read_to_string(status).expect("Linux tells it");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("it is told");
    let kilobytes = line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number");
    kilobytes << 10
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_question_costs_a_small_multiple_of_its_bytes_whatever_they_are() {
    const SIZE: usize = 8 << 20;
    let upstream = provider().build();
    let text = configuration(on_a_socket(&upstream).await, "[cache]\nttl = \"5m\"")
        .replace("max_body_bytes = 100000", &format!("max_body_bytes = {SIZE}"));
    // Of small values, of which a tree has one node for two bytes; and of objects out of order.
    for item in ["0,", r#"{"b":0,"a":0},"#, "\"\","] {
        let gateway = Gateway::start(&text).await;
        // By its own name at the provider, and by another, for which it is written anew.
        for model in ["gpt", "gpt-secret"] {
            gateway.chat(ALICE, model, "Hello").await;
            let before = most_memory(&gateway);
            let items = item.repeat((SIZE - 200) / item.len());
            let body = format!(
                r#"{{"messages":[{{"role":"user","content":"Hello"}}],"x":[{items}0],"model":"{model}"}}"#
            );
            // Without optimization it is much to read.
            let request = gateway.ask(ALICE, "/v1/chat/completions", body).timeout(10 * PATIENCE);
            let answer = request.send().await;
            assert_eq!(answer.expect("an answer").status(), StatusCode::OK);
            let took = most_memory(&gateway) - before;
            assert!(took < 12 * SIZE, "{} MiB for {item} to {model}", took >> 20);
        }
    }
}

#[tokio::test]
async fn a_question_for_a_model_of_another_name_is_the_same_besides() {
    let (capture, address) = Capture::start(StatusCode::OK, &[], "{}").await;
    let gateway = Gateway::start(&configuration(address, "")).await;
    let questions = [
        r#"{"model":"NAME"}"#,
        r#" { "a" : 1.50, "\u006dodel" : "NAME" , "b":[{"model":"x"}]} "#,
        r#"{"m":{"model":"x","n":["model"]},"t":"\"model\":\"y\\","u":"model","model":"NAME","n":null}"#,
    ];
    for question in questions {
        let asked = question.replace("NAME", "gpt-secret");
        let answer = gateway.ask(ALICE, "/v1/chat/completions", asked).send().await;
        assert_eq!(answer.expect("an answer").status(), StatusCode::OK);
        let came = capture.sent().pop().expect("it came");
        assert_eq!(came.body, question.replace("NAME", "gpt"));
    }
}
