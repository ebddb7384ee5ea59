//! Scores of logits: `log p(i) = l_i - ln(sum_j exp(l_j))`, summed in f64.

/// The natural logarithm of the softmax's denominator.
pub fn log_sum_exp(logits: &[f32]) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|l| f64::from(l - largest).exp()).sum();
    f64::from(largest) + sum.ln()
}

/// Log-probability of `id`, in nats.
pub fn log_probability(logits: &[f32], id: u32) -> f64 {
    f64::from(logits[id as usize]) - log_sum_exp(logits)
}

/// The `n` largest logits with their ids, largest first, lower ids first among equals.
pub fn top(logits: &[f32], n: usize) -> Vec<(u32, f32)> {
    let mut order: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    order.truncate(n);
    order
}

/// Kullback-Leibler divergence of `q` from `p`, both given as logits: `sum_i p_i (log p_i - log q_i)`, in nats.
pub fn kl_divergence(p: &[f32], q: &[f32]) -> f64 {
    let (p_sum, q_sum) = (log_sum_exp(p), log_sum_exp(q));
    let term = |(p, q): (&f32, &f32)| {
        let log_p = f64::from(*p) - p_sum;
        log_p.exp() * (log_p - (f64::from(*q) - q_sum))
    };
    p.iter().zip(q).map(term).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_known_distributions() {
        let logits = [0.5_f32.ln() + 3.0, 0.25_f32.ln() + 3.0, 0.25_f32.ln() + 3.0];
        assert!((log_probability(&logits, 0) - 0.5_f64.ln()).abs() < 1e-6);
        assert_eq!(top(&logits, 2).iter().map(|t| t.0).collect::<Vec<_>>(), [0, 1]);
        assert!(kl_divergence(&logits, &logits).abs() < 1e-12);
        // KL of (1/2, 1/4, 1/4) from the uniform distribution: ln 3 - 1.5 ln 2.
        let expected = 3_f64.ln() - 1.5 * 2_f64.ln();
        assert!((kl_divergence(&logits, &[0.0; 3]) - expected).abs() < 1e-6);
    }
}
