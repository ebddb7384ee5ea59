//! Steps that check guesses: the token chosen last and a draft of what follows it are processed at once, and a token is chosen at each
//! position. Where it is not the next guess, what was processed after it is forgotten. Draws do not depend on how many tokens were drawn
//! before ([`crate::ops::sample`]), so the tokens are those of plain steps, greedy or not.

use super::{Drafter, Generation, Input, Instant, Model, Params, Positions, Result, Sampling, Speculation, no_numbers};

/// What makes guesses for a request, if it may have any. Penalties count each token before the next is chosen: with them steps go one by one.
pub fn drafter(model: &Model, prompt: &[u32], params: &Params) -> Option<Drafter> {
    let on = match params.speculation {
        Speculation::Off => false,
        Speculation::Auto => model.info().backend.name != "gpu",
        Speculation::Always => true,
    };
    let Sampling { repetition_penalty, frequency_penalty, presence_penalty, .. } = params.sampling;
    let neutral = repetition_penalty == 1.0 && frequency_penalty == 0.0 && presence_penalty == 0.0;
    (on && neutral).then(|| Drafter::new(params.speculation == Speculation::Always, [&params.prediction, prompt].concat()))
}

impl Generation {
    /// Checks a draft, if there is one, and keeps the tokens that are known then: one more than guesses were right.
    pub(super) async fn verify(&mut self, model: &mut Model) -> Result<()> {
        let Some(drafter) = &mut self.drafter else { return Ok(()) };
        // The step's last logits give a token as well.
        let most = (self.limit - self.submitted).saturating_sub(1).min(model.undoes());
        let draft = drafter.draft(most);
        let Some(&last) = model.tokens().last().filter(|_| !draft.is_empty()) else { return Ok(()) };
        let (started, vocab, next) = (Instant::now(), model.info().vocab_size, model.tokens().len());
        let logits = model.step(Input::Tokens(&[&[last], &draft[..]].concat()), Positions::All, None)?;
        let chosen = model.backend.choose(logits, vocab, &self.params.sampling, next).await?;
        let chosen: Vec<u32> = chosen.into_iter().collect::<Option<_>>().ok_or_else(no_numbers)?;
        let right = draft.iter().zip(&chosen).take_while(|(guess, id)| guess == id).count();
        model.backend.truncate(model.session, next + right);
        model.backend.set_sampled(model.session, chosen[right]);
        self.verified.extend(&chosen[..=right]);
        self.submitted += right + 1;
        self.usage.drafted_tokens += draft.len();
        self.usage.accepted_tokens += right;
        drafter.time(draft.len() + 1, started.elapsed());
        Ok(())
    }
}
