//! Generation: prefill in chunks, decode token by token, stop. Where guesses at the next tokens are mostly right, a step checks several
//! of them ([`Speculation`]).
//!
//! [`Generation::next`] does one piece of work (a chunk of the prompt, or a token) so that whoever drives it can show
//! progress and stop between any two.

use std::{collections::VecDeque, rc::Rc};

use futures_util::future::LocalBoxFuture;
use web_time::{Duration, Instant};

use crate::{
    backend::{Input, Sampling, Tensor},
    engine::Model,
    error::{Error, Result},
    models::Positions,
    ops,
    text::{StopStrings, TextStream},
};
use draft::Drafter;

mod draft;
mod verify;

/// What to generate, and when to stop.
#[derive(Debug, Clone, PartialEq)]
pub struct Params {
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Most tokens of the answer; `None`: until the context is full.
    pub max_tokens: Option<usize>,
    /// Strings that end the answer; they are not part of it.
    pub stop: Vec<String>,
    /// Go on past the model's end tokens.
    pub ignore_eos: bool,
    /// Keep the keys and values of the longest prefix shared with the previous request.
    pub reuse_prefix: bool,
    /// Whether steps check guesses.
    pub speculation: Speculation,
    /// What the answer is expected to be like: more to copy guesses from.
    pub prediction: Vec<u32>,
}

/// Whether steps check guesses at what follows, copied from prompt and answer. Tokens are those that they would be without; requests
/// with penalties never do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Speculation {
    /// No.
    Off,
    /// On the processor, while it is faster than not to. On a GPU several steps are in flight instead.
    #[default]
    Auto,
    /// Whenever there is a guess, faster or not: for tests.
    Always,
}

impl Default for Params {
    fn default() -> Self {
        Params {
            sampling: Sampling::default(),
            max_tokens: None,
            stop: Vec::new(),
            ignore_eos: false,
            reuse_prefix: true,
            speculation: Speculation::Auto,
            prediction: Vec::new(),
        }
    }
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// An end token or a stop string.
    Stop,
    /// `max_tokens`, or the context is full.
    Length,
}

/// Counts and times of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Of those, taken from the previous request.
    pub reused_tokens: usize,
    /// Tokens of the answer, end token included.
    pub completion_tokens: usize,
    /// Guesses that steps have checked, see [`Speculation`].
    pub drafted_tokens: usize,
    /// Of those, right ones.
    pub accepted_tokens: usize,
    /// From the start to the first token, milliseconds.
    pub prefill_ms: f64,
    /// From the first token to the last, milliseconds.
    pub decode_ms: f64,
}

/// What happened in one piece of work.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// So many of the prompt's tokens are processed.
    Prefill {
        /// Processed.
        done: usize,
        /// Of so many.
        total: usize,
    },
    /// A token of the answer, and the text that it completes (perhaps none).
    Token {
        /// The token.
        id: u32,
        /// Whole characters; held back while they may be the beginning of a stop string.
        text: String,
    },
    /// The end.
    Done {
        /// Text that was held back.
        text: String,
        /// Why.
        reason: FinishReason,
        /// Counts and times.
        usage: Usage,
    },
}

/// A request in progress. Dropping it stops it; the model's session keeps what was computed.
pub struct Generation {
    params: Params,
    prompt: Vec<u32>,
    prefilled: usize,
    in_flight: VecDeque<(LocalBoxFuture<'static, Result<Option<u32>>>, Tensor)>,
    submitted: usize,
    /// What makes guesses, where there are any.
    drafter: Option<Drafter>,
    /// Tokens of the answer that a step has found and [`Generation::next`] has not given out yet.
    verified: VecDeque<u32>,
    limit: usize,
    text: Option<TextStream>,
    stops: Option<StopStrings>,
    ending: Option<FinishReason>,
    usage: Usage,
    started: Instant,
    first_token: Option<Instant>,
    /// Of the model's adapters and session when this began.
    revision: u64,
}

impl Generation {
    /// Checks the request and prepares the model's session.
    pub(crate) fn new(model: &mut Model, prompt: Vec<u32>, params: Params) -> Result<Generation> {
        model.need_generator()?;
        validate(&params)?;
        model.check_tokens(&prompt)?;
        let context = model.context();
        if prompt.is_empty() {
            return Err(Error::InvalidInput("the prompt is empty".into()));
        }
        if prompt.len() >= context {
            return Err(Error::ContextOverflow { tokens: prompt.len(), context });
        }
        let limit = params.max_tokens.unwrap_or(usize::MAX).min(context - prompt.len());
        let reused = model.rewind(if params.reuse_prefix { &prompt } else { &[] }, prompt.len() - 1);
        model.backend.reset_counts(model.session, &prompt);
        let text = model.tokenizer().map(|t| TextStream::new(Rc::clone(t), !params.ignore_eos)).transpose()?;
        Ok(Generation {
            stops: Some(StopStrings::new(params.stop.clone())?),
            usage: Usage { prompt_tokens: prompt.len(), reused_tokens: reused, ..Usage::default() },
            prefilled: reused,
            drafter: verify::drafter(model, &prompt, &params),
            verified: VecDeque::new(),
            params,
            prompt,
            in_flight: VecDeque::new(),
            submitted: 0,
            limit,
            text,
            ending: None,
            started: Instant::now(),
            first_token: None,
            revision: model.revision(),
        })
    }

    /// Does the next piece of work; `None` after [`Event::Done`] and after a failure.
    pub async fn next(&mut self, model: &mut Model) -> Result<Option<Event>> {
        if self.revision != model.revision() && self.stops.take().is_some() {
            // The session is another request's by now.
            self.in_flight.clear();
            return Err(Error::InvalidInput(
                "during this request the model's adapters were changed, or another session was used: start it again".into(),
            ));
        }
        let result = self.work(model).await;
        if result.is_err() {
            self.in_flight.clear();
            self.stops = None;
            model.forget();
        }
        result
    }

    async fn work(&mut self, model: &mut Model) -> Result<Option<Event>> {
        if self.stops.is_none() {
            return Ok(None);
        }
        if let Some(reason) = self.ending {
            return Ok(Some(self.finish(model, reason)));
        }
        if self.prefilled < self.prompt.len() {
            return self.prefill(model).await.map(Some);
        }
        if self.limit == 0 {
            return Ok(Some(self.finish(model, FinishReason::Length)));
        }
        self.decode(model).await.map(Some)
    }

    /// Processes the next chunk of the prompt; the last one also chooses the first token.
    async fn prefill(&mut self, model: &mut Model) -> Result<Event> {
        let end = self.prompt.len().min(self.prefilled + model.prefill_chunk());
        let chunk = &self.prompt[self.prefilled..end];
        if end < self.prompt.len() || self.limit == 0 {
            model.step(Input::Tokens(chunk), Positions::Last, None)?;
            model.wait().await?;
        } else {
            let logits = model.step(Input::Tokens(chunk), Positions::Last, Some(&self.params.sampling))?;
            self.submitted = 1;
            self.in_flight.push_back((model.backend.sampled(), logits));
        }
        model.remember(chunk);
        self.prefilled = end;
        Ok(Event::Prefill { done: end, total: self.prompt.len() })
    }

    /// Gives out a token that is known already; or checks guesses; or keeps the device busy with steps ahead and waits for the
    /// oldest token.
    async fn decode(&mut self, model: &mut Model) -> Result<Event> {
        if self.verified.is_empty() && self.in_flight.is_empty() {
            self.verify(model).await?;
        }
        if let Some(id) = self.verified.pop_front() {
            return self.accept(model, id);
        }
        let ahead = if self.drafter.is_some() { 1 } else { model.steps_ahead(&self.params.sampling) };
        let (started, before) = (Instant::now(), self.submitted);
        while self.in_flight.len() < ahead && self.submitted < self.limit {
            let logits = model.step(Input::Sampled, Positions::Last, Some(&self.params.sampling))?;
            self.submitted += 1;
            self.in_flight.push_back((model.backend.sampled(), logits));
        }
        let (sampled, logits) = self.in_flight.pop_front().expect("below the limit");
        let id = match sampled.await? {
            Some(id) => id,
            None if ahead > 1 => return Err(no_numbers()),
            None => self.choose_here(model, logits).await?,
        };
        if let Some(drafter) = &mut self.drafter {
            drafter.time(self.submitted - before, started.elapsed());
        }
        self.accept(model, id)
    }

    /// The device's candidates do not hold the nucleus: reads the logits and samples here.
    async fn choose_here(&mut self, model: &mut Model, logits: Tensor) -> Result<u32> {
        let logits = model.backend.read(logits).await?;
        if !logits.iter().any(|l| l.is_finite()) {
            return Err(no_numbers());
        }
        let mut counts = vec![0_u32; logits.len()];
        self.prompt.iter().for_each(|&id| counts[id as usize] = ops::sample::IN_PROMPT);
        model.tokens()[self.prompt.len()..].iter().for_each(|&id| counts[id as usize] += 1);
        let position = model.backend.position(model.session) as u32;
        let id = ops::sample::reference(&logits, &counts, &self.params.sampling, position);
        model.backend.set_sampled(model.session, id);
        Ok(id)
    }

    fn accept(&mut self, model: &mut Model, id: u32) -> Result<Event> {
        let now = Instant::now();
        let first = *self.first_token.get_or_insert(now);
        let ms = |d: Duration| d.as_secs_f64() * 1e3;
        self.usage.prefill_ms = ms(first - self.started);
        self.usage.decode_ms = ms(now - first);
        self.usage.completion_tokens += 1;
        model.remember(&[id]);
        if let Some(drafter) = &mut self.drafter {
            drafter.learn(id);
        }
        if !self.params.ignore_eos && model.is_end(id) {
            self.ending = Some(FinishReason::Stop);
            return Ok(Event::Token { id, text: String::new() });
        }
        let mut text = match &mut self.text {
            Some(stream) if model.has_text(id) => stream.push(id)?,
            _ => String::new(),
        };
        if let Some(stops) = &mut self.stops {
            let stopped = stops.push(&text);
            text = stopped.text;
            if stopped.stopped {
                // What the stream still holds comes after the stop string.
                self.text = None;
                self.ending = Some(FinishReason::Stop);
            }
        }
        if self.ending.is_none() && self.usage.completion_tokens == self.limit {
            self.ending = Some(FinishReason::Length);
        }
        Ok(Event::Token { id, text })
    }

    fn finish(&mut self, model: &mut Model, reason: FinishReason) -> Event {
        // Steps ahead of the stop are undone by the session's length.
        self.in_flight.clear();
        model.settle();
        let rest = self.text.take().map(TextStream::finish).unwrap_or_default();
        let mut text = String::new();
        if let Some(mut stops) = self.stops.take() {
            let last = stops.push(&rest);
            text = last.text;
            if !last.stopped {
                text += &stops.finish();
            }
        }
        Event::Done { text, reason, usage: self.usage }
    }
}

fn no_numbers() -> Error {
    Error::Device("the logits are not numbers: weights or driver are faulty".into())
}

fn validate(params: &Params) -> Result<()> {
    let Sampling { temperature, top_p, min_p, repetition_penalty, frequency_penalty, presence_penalty, .. } = params.sampling;
    let check = |name: &str, value: f32, low: f32, high: f32| match value >= low && value <= high {
        true => Ok(()),
        false => Err(Error::InvalidInput(format!("{name} is {value}; it must be from {low} to {high}"))),
    };
    check("temperature", temperature, 0.0, 100.0)?;
    check("top_p", top_p, 0.0, 1.0)?;
    check("min_p", min_p, 0.0, 1.0)?;
    check("repetition_penalty", repetition_penalty, 0.01, 100.0)?;
    check("frequency_penalty", frequency_penalty, -100.0, 100.0)?;
    check("presence_penalty", presence_penalty, -100.0, 100.0)
}
