//! Chat templates: a conversation becomes the prompt that the model was trained on.
//!
//! Templates are Jinja, run as transformers runs them (`trim_blocks`, `lstrip_blocks`, loop controls, Python's string
//! methods, `tojson`, `raise_exception`, `strftime_now`). A template comes with a model, so it is not trusted: it can reach
//! nothing but its arguments, and what it does is bounded, whatever it is. Its shape (`shape.rs`) is looked at before it is parsed; then
//! each step whose size depends on values is rewritten (`rewrite.rs`) to ask a meter first, which knows the memory that
//! values take at one time, and the work done on them.

mod builtins;
mod data;
mod meter;
mod methods;
mod operators;
mod rewrite;
mod shape;

use std::{collections::BTreeMap, fmt, sync::Arc};

use minijinja::{
    AutoEscape, Environment, ErrorKind, State, Value,
    machinery::{CompiledTemplate, TemplateConfig, Vm, WhitespaceConfig, make_string_output},
    syntax::SyntaxConfig,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use crate::error::{Error, Result};
use crate::text::strftime::strftime;
use meter::{Meter, refuse};

/// Longest template that is compiled; the longest in use are below 32 KiB.
const MAX_SOURCE: usize = 64 << 10;
/// Interpreter steps of a rendering: a thousand messages take some 100,000.
const MAX_STEPS: u64 = 5_000_000;
/// Nested calls of macros and recursive loops.
const MAX_RECURSION: usize = 100;
/// Bytes that a rendering's values and prompt take at one time, besides four for each of the conversation's.
const MAX_MEMORY: usize = 4 << 20;
/// Work on them, in nanoseconds or so, besides 64 for each byte of the conversation.
const MAX_WORK: u64 = 300_000_000;

/// One message of a conversation. Fields that no template would see (`name`, `tool_calls`) are refused, not dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// `system`, `user`, `assistant`, or what else the model's template knows.
    pub role: String,
    /// The text.
    pub content: String,
}

/// What a rendering depends on besides the messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RenderOptions {
    /// End the prompt with the beginning of an answer.
    pub add_generation_prompt: bool,
    /// Local time in seconds since 1970 for `strftime_now`; a template that asks for the time without it fails.
    pub now: Option<i64>,
}

/// A compiled chat template.
pub struct ChatTemplate {
    source: String,
    /// Special tokens by the names of the template's variables.
    tokens: BTreeMap<&'static str, String>,
}

/// The special tokens that transformers gives to templates, where a model has them.
const TOKENS: [&str; 7] = ["bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token"];

impl ChatTemplate {
    /// The template of a `tokenizer_config.json`, if it has one: a text, or a list of named ones, of which `default` counts.
    pub fn from_config(tokenizer_config: &serde_json::Value) -> Result<Option<Self>> {
        let template = &tokenizer_config["chat_template"];
        let source = match template {
            serde_json::Value::Null => return Ok(None),
            serde_json::Value::String(source) => Some(source.as_str()),
            list => list
                .as_array()
                .and_then(|list| list.iter().find(|entry| entry["name"] == "default"))
                .and_then(|entry| entry["template"].as_str()),
        };
        let source = source.ok_or_else(|| {
            Error::InvalidFile("tokenizer_config.json: chat_template is neither a text nor a list with \"default\"".into())
        })?;
        let tokens = TOKENS.into_iter().filter_map(|name| Some((name, special_token(tokenizer_config, name)?)));
        Self::new(source, tokens.collect()).map(Some)
    }

    /// Compiles `source`; the tokens are the template's variables of that name.
    pub fn new(source: &str, tokens: BTreeMap<&'static str, String>) -> Result<Self> {
        if source.len() > MAX_SOURCE {
            return Err(Error::InvalidFile(format!("chat template: {} bytes, at most {MAX_SOURCE} are compiled", source.len())));
        }
        let source = without_generation(source);
        shape::check(&source).map_err(|e| invalid(&e))?;
        let nothing = Arc::new(Meter::new(MAX_MEMORY, MAX_WORK));
        compiled(&source).and_then(|compiled| rewrite::metered(&compiled.instructions, &nothing)).map_err(|e| invalid(&e))?;
        Ok(Self { source, tokens })
    }

    /// The prompt for `messages`.
    pub fn render(&self, messages: &[Message], options: RenderOptions) -> Result<String> {
        let messages = serde_json::to_value(messages).map_err(|e| invalid(&e))?;
        self.render_with(Map::from_iter([("messages".to_owned(), messages)]), options)
    }

    /// The prompt for a conversation given as the template's variables: `messages` of any form that the template knows, `tools`,
    /// and what else it asks for.
    pub fn render_with(&self, mut variables: Map<String, Json>, options: RenderOptions) -> Result<String> {
        if variables.get("messages").and_then(Json::as_array).is_none_or(Vec::is_empty) {
            return Err(Error::InvalidInput("messages is empty: a chat needs at least one message".into()));
        }
        let conversation: usize = variables.values().map(length).sum();
        // Transformers has the first two even where there are none.
        for name in ["tools", "documents"] {
            variables.entry(name).or_insert(Json::Null);
        }
        for (name, token) in &self.tokens {
            variables.entry(*name).or_insert(token.as_str().into());
        }
        variables.insert("add_generation_prompt".into(), options.add_generation_prompt.into());
        let memory = conversation.saturating_mul(4).saturating_add(MAX_MEMORY);
        let meter = Arc::new(Meter::new(memory, MAX_WORK + 64 * conversation as u64));
        let variables = variables.into_iter().map(|(name, value)| Ok((name, data::from_json(&meter, value, 0)?)));
        let variables = variables.collect::<Result<Vec<_>, minijinja::Error>>();
        let variables = variables.map_err(|e| Error::InvalidInput(format!("conversation: {e}")))?;
        let mut prompt = String::with_capacity(conversation);
        self.run(&meter, variables, options.now, &mut prompt).map_err(|e| failed(&e))?;
        Ok(prompt)
    }

    /// Compiles for each rendering: the program refers to the source.
    fn run(
        &self,
        meter: &Arc<Meter>,
        variables: Vec<(String, Value)>,
        now: Option<i64>,
        prompt: &mut String,
    ) -> Result<(), minijinja::Error> {
        let environment = environment(meter, now);
        let program = rewrite::metered(&compiled(&self.source)?.instructions, meter)?;
        let blocks = BTreeMap::new();
        let variables = data::input(meter, variables)?;
        Vm::new(&environment).eval(&program, variables, &blocks, &mut make_string_output(prompt), AutoEscape::None)?;
        Ok(())
    }
}

fn compiled(source: &str) -> Result<CompiledTemplate<'_>, minijinja::Error> {
    let config = TemplateConfig {
        syntax_config: SyntaxConfig,
        ws_config: WhitespaceConfig { keep_trailing_newline: false, lstrip_blocks: true, trim_blocks: true },
        default_auto_escape: Arc::new(|_| AutoEscape::None),
    };
    CompiledTemplate::new("chat", source, &config)
}

/// What a template finds around it: nothing that is not added here.
fn environment(meter: &Arc<Meter>, now: Option<i64>) -> Environment<'static> {
    let mut environment = Environment::empty();
    environment.set_recursion_limit(MAX_RECURSION);
    environment.set_fuel(Some(MAX_STEPS));
    operators::register(&mut environment, meter);
    builtins::register(&mut environment, meter);
    let counted = meter.clone();
    environment.set_unknown_method_callback(move |state, value, method, args| methods::call(&counted, state, value, method, args));
    environment.add_function("raise_exception", raise_exception);
    let counted = meter.clone();
    environment.add_function("strftime_now", move |_: &State, format: &str| -> Result<Value, minijinja::Error> {
        // A directive of two bytes becomes a month's name.
        counted.room(8 * format.len())?;
        counted.work(16 * format.len())?;
        data::own(&counted, strftime_now(now, format)?.into())
    });
    environment
}

/// Bytes of the strings within `value`.
fn length(value: &Json) -> usize {
    match value {
        Json::String(text) => text.len(),
        Json::Array(list) => list.iter().map(length).sum(),
        Json::Object(map) => map.iter().map(|(key, value)| key.len() + length(value)).sum(),
        _ => 0,
    }
}

/// Transformers' `{% generation %}` marks what a model has written, for training; what it holds is rendered all the same.
fn without_generation(source: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(source.len()), source);
    while let Some(start) = rest.find("{%") {
        let Some(len) = rest[start + 2..].find("%}").map(|len| len + 2) else { break };
        let tag = &rest[start..start + len];
        out += &rest[..start];
        out += &match tag[2..].trim_matches(['-', '+', ' ', '\t', '\n']) {
            "generation" => tag.replace("generation", "if true"),
            "endgeneration" => tag.replace("endgeneration", "endif"),
            _ => tag.to_owned(),
        };
        rest = &rest[start + len..];
    }
    out + rest
}

/// A special token of `tokenizer_config.json`: a text, or an object with `content`.
pub fn special_token(tokenizer_config: &serde_json::Value, name: &str) -> Option<String> {
    let token = &tokenizer_config[name];
    token.as_str().or_else(|| token["content"].as_str()).map(str::to_string)
}

fn invalid(error: &dyn fmt::Display) -> Error {
    Error::InvalidFile(format!("chat template: {error}"))
}

/// What stopped a rendering: the template's own refusal of the conversation, or a fault of the template.
fn failed(error: &minijinja::Error) -> Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(e) = cause {
        if let Some(Refused(message)) = e.downcast_ref() {
            return Error::InvalidInput(format!("the model's chat template refuses this conversation: {message}"));
        }
        cause = e.source();
    }
    invalid(error)
}

/// The message of `raise_exception`.
#[derive(Debug)]
struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

fn raise_exception(message: String) -> Result<Value, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(Refused(message)))
}

fn strftime_now(now: Option<i64>, format: &str) -> Result<String, minijinja::Error> {
    let now = now.ok_or_else(|| refuse("strftime_now: the caller gave no time"))?;
    strftime(now, format).map_err(|directive| refuse(format!("strftime_now: unknown directive {directive:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str, messages: &[(&str, &str)]) -> Result<String> {
        let messages: Vec<_> = messages.iter().map(|(r, c)| Message { role: r.to_string(), content: c.to_string() }).collect();
        let template = ChatTemplate::new(source, BTreeMap::from([("bos_token", "<s>".into())]))?;
        template.render(&messages, RenderOptions { add_generation_prompt: true, now: Some(1_732_374_000) })
    }

    #[test]
    fn runs_as_transformers_does() {
        let source = "{{ bos_token }}\n    {%- for m in messages %}\n    {% if m.role == 'skip' %}\n    {% continue %}\n    {% endif %}\n\
            [{{ m['role'].upper() }}] {{ m.content.strip() }}{{ m.content.split(' ')[-1] | tojson }}\n{% endfor %}\n\
            {% if add_generation_prompt %}go {{ strftime_now('%d %b %Y') }}{% endif %}";
        let text = render(source, &[("user", " hi <you> "), ("skip", "x"), ("assistant", "é \"b\"")]).unwrap();
        assert_eq!(text, "<s>[USER] hi <you>\"\"\n[ASSISTANT] é \"b\"\"\\\"b\\\"\"\ngo 23 Nov 2024");
    }

    #[test]
    fn json_is_pythons() {
        let source = "{{ {'a': [1, 2.0, true, none], 'b': {}, 'é': '<&>'} | tojson }}|{{ [1, {'a': []}] | tojson(indent=2) }}";
        let text = render(source, &[("user", "")]).unwrap();
        assert_eq!(text, "{\"a\": [1, 2.0, true, null], \"b\": {}, \"é\": \"<&>\"}|[\n  1,\n  {\n    \"a\": []\n  }\n]");
    }

    #[test]
    fn refusals_and_faults_have_their_own_codes() {
        let code = |source: &str| render(source, &[("user", "hi")]).unwrap_err();
        let refused = code("{{ raise_exception('roles must alternate') }}");
        assert_eq!(refused.code(), "invalid_input");
        assert!(refused.to_string().contains("roles must alternate"));
        assert_eq!(code("{% if %}").code(), "invalid_file");
        assert_eq!(code("{{ 1 + {} }}").code(), "invalid_file");
        assert_eq!(code("{{ strftime_now('%Q') }}").code(), "invalid_file");
        let empty = ChatTemplate::new("", BTreeMap::new()).unwrap().render(&[], RenderOptions::default()).unwrap_err();
        assert_eq!(empty.code(), "invalid_input");
    }

    #[test]
    fn a_hostile_template_is_stopped() {
        let steps = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
        let recursion = "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}";
        let output = "{% for a in range(9999) %}{{ 'x' * 9999 }}{% endfor %}";
        for source in
            [steps, recursion, output, &"x".repeat(MAX_SOURCE + 1), &"{{ (".repeat(9999), &format!("{{{{ {} }}}}", "(".repeat(9999))]
        {
            assert_eq!(render(source, &[("user", "hi")]).unwrap_err().code(), "invalid_file");
        }
    }

    #[test]
    fn finds_the_template_in_its_config() {
        let named = serde_json::json!({"bos_token": {"content": "<b>"}, "chat_template":
            [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "{{ bos_token }}yes"}]});
        let template = ChatTemplate::from_config(&named).unwrap().unwrap();
        let message = Message { role: "user".into(), content: "hi".into() };
        assert_eq!(template.render(&[message], RenderOptions::default()).unwrap(), "<b>yes");
        assert!(ChatTemplate::from_config(&serde_json::json!({})).unwrap().is_none());
        assert!(ChatTemplate::from_config(&serde_json::json!({"chat_template": 3})).is_err());
    }
}
