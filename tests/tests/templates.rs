//! Chat templates of eighteen real models render exactly as jinja2 renders them for transformers: turns, tools, refusals.

use openweights::text::{ChatTemplate, RenderOptions};
use openweights_tests::{fixture, json, vocabularies::published};
use serde_json::{Value, json as value};

/// The template of an entry of `golden.json`, from the fixtures or from what the scripts fetch.
fn template(entry: &Value) -> ChatTemplate {
    let config = match entry["file"].as_str() {
        Some(file) => {
            let source = std::fs::read_to_string(fixture(&format!("templates/{file}"))).expect("the fixture");
            let mut config = entry["tokens"].clone();
            config["chat_template"] = source.into();
            config
        }
        None => serde_json::from_slice(&published(entry["config"].as_str().expect("a file"))).expect("JSON"),
    };
    ChatTemplate::from_config(&config).expect("it compiles").expect("there is one")
}

#[test]
fn real_templates_render_as_jinja2_does() {
    let golden = json("templates/golden.json");
    let (mut texts, mut refusals, mut wrong) = (0, 0, Vec::new());
    for entry in golden["templates"].as_array().expect("templates") {
        let template = template(entry);
        for (case, expected) in golden["cases"].as_array().expect("cases").iter().zip(entry["golden"].as_array().expect("goldens")) {
            let mut variables = case.as_object().expect("variables").clone();
            variables.remove("case");
            let add_generation_prompt = variables.remove("add_generation_prompt") == Some(true.into());
            let rendered = template.render_with(variables, RenderOptions { add_generation_prompt, now: golden["now"].as_i64() });
            let name = format!("{}, {}", entry["name"], case["case"]);
            match (&rendered, expected["text"].as_str(), expected["refused"].as_str()) {
                (Ok(text), Some(expected), _) if text == expected => texts += 1,
                (Err(error), None, Some(refused)) if error.code() == "invalid_input" && error.to_string().contains(refused) => {
                    refusals += 1
                }
                (_, expected, refused) => wrong.push(format!("{name}:\n  {rendered:?}\ninstead of\n  {expected:?} {refused:?}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(texts + refusals, 18 * 12);
    assert!(refusals > 8);
    println!("{texts} prompts, {refusals} refusals");
}

/// What stops a hostile template must not stop a long conversation.
#[test]
fn long_conversations_render() {
    for (count, words) in [(1000, 2500), (10_000, 25)] {
        let role = |at: usize| if at.is_multiple_of(2) { "user" } else { "assistant" };
        let messages: Value = (0..count).map(|at| value!({"role": role(at), "content": "abc ".repeat(words)})).collect();
        for entry in json("templates/golden.json")["templates"].as_array().expect("templates") {
            let variables = serde_json::Map::from_iter([("messages".to_owned(), messages.clone())]);
            let start = std::time::Instant::now();
            let rendered = template(entry).render_with(variables, RenderOptions { add_generation_prompt: true, now: Some(0) });
            println!("{count} messages, {}: {:?}", entry["name"], start.elapsed());
            let length = rendered.unwrap_or_else(|e| panic!("{count} messages, {}: {e}", entry["name"])).len();
            assert!(length > count * (4 * words - 1), "{}: {length} bytes", entry["name"]);
        }
    }
}

#[test]
fn what_has_no_messages_is_refused() {
    let template = ChatTemplate::from_config(&value!({"chat_template": "{{ messages }}"})).expect("it compiles").expect("there is one");
    for messages in [value!(null), value!([]), value!("text")] {
        let variables = serde_json::Map::from_iter([("messages".to_owned(), messages)]);
        assert_eq!(template.render_with(variables, RenderOptions::default()).err().map(|e| e.code()), Some("invalid_input"));
    }
}
