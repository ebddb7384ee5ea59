//! Chat templates: a conversation becomes the prompt that the model was trained on.
//!
//! Templates are Jinja, run as transformers runs them (`trim_blocks`, `lstrip_blocks`, loop controls, Python's string
//! methods, `tojson`, `raise_exception`, `strftime_now`). A template comes with a model, so it is not trusted: steps,
//! recursion, source and output are bounded, and it can reach nothing but its arguments. Not bounded is the memory of
//! a text that a template doubles within its steps (`x ~ x`): minijinja has no hook for it.

use std::{collections::BTreeMap, fmt, io};

use minijinja::{Environment, ErrorKind, Value, context, value::ValueKind};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use crate::error::{Error, Result};
use crate::text::{python_json::tojson, strftime::strftime};

/// Longest template that is compiled; the longest in use are below 32 KiB.
const MAX_SOURCE: usize = 1 << 20;
/// Interpreter steps of a rendering: a thousand messages take some 100,000.
const MAX_STEPS: u64 = 10_000_000;
/// Nested calls of macros and recursive loops.
const MAX_RECURSION: usize = 100;
/// Longest prompt, over the length of the conversation.
const MAX_OUTPUT: usize = 4 << 20;

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
    environment: Environment<'static>,
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
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_recursion_limit(MAX_RECURSION);
        environment.set_fuel(Some(MAX_STEPS));
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("tojson", tojson);
        environment.add_test("iterable", is_iterable);
        environment.add_function("raise_exception", raise_exception);
        environment.add_template_owned("chat", without_generation(source)).map_err(|e| invalid(&e))?;
        Ok(Self { environment, tokens })
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
        let template = self.environment.get_template("chat").map_err(|e| invalid(&e))?;
        let conversation: usize = variables.values().map(length).sum();
        // Transformers has the first two even where there are none.
        for name in ["tools", "documents"] {
            variables.entry(name).or_insert(Json::Null);
        }
        for (name, token) in &self.tokens {
            variables.entry(*name).or_insert(token.as_str().into());
        }
        let variables = context! {
            add_generation_prompt => options.add_generation_prompt,
            strftime_now => Value::from_function(move |format: &str| strftime_now(options.now, format)),
            ..Value::from_serialize(variables)
        };
        let mut prompt = Bounded { bytes: Vec::new(), room: MAX_OUTPUT.saturating_add(conversation) };
        template.render_captured_to(variables, &mut prompt).map_err(|e| failed(&e))?;
        String::from_utf8(prompt.bytes).map_err(|e| invalid(&e))
    }
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
        let Some(len) = rest[start..].find("%}") else { break };
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

/// As in Python, where a text is iterable and none is not.
fn is_iterable(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::Iterable | ValueKind::String | ValueKind::Undefined)
}

fn strftime_now(now: Option<i64>, format: &str) -> Result<String, minijinja::Error> {
    let error = |what: String| minijinja::Error::new(ErrorKind::InvalidOperation, what);
    let now = now.ok_or_else(|| error("strftime_now: the caller gave no time".into()))?;
    strftime(now, format).map_err(|directive| error(format!("strftime_now: unknown directive {directive:?}")))
}

/// Output that refuses to grow past its room.
struct Bounded {
    bytes: Vec<u8>,
    room: usize,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.room - self.bytes.len() {
            return Err(io::Error::other(format!("the prompt is longer than {} bytes", self.room)));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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
