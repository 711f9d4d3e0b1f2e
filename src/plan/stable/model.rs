//! What changes together, as far as one can tell.

use super::super::history::{History, REVISIONS, package};
use crate::store::{Closure, NodeId};

/// A set of events. The first word has the revisions that were seen, the newest
/// in bit 0; the others have a bit for each package, which may change by itself,
/// or for several where there are more packages than bits.
pub type Events = [u64; WORDS];

const WORDS: usize = 8;

/// The bits for single packages.
const PACKAGES: usize = (WORDS - 1) * 64;

/// The bits that packages share where there are too many.
const SHARED: usize = 64;

/// For how many revisions a plan should be good.
const HORIZON: f64 = 4.0;

/// How much less each revision counts than the one after it.
const FADING: f64 = 0.97;

/// As how many revisions that were seen the estimates from the graph count, and how
/// much they count in the end.
const TRUST: f64 = 4.0;
const TRUST_AT_LEAST: f64 = 0.4;

/// How often a package is taken to change by itself, before it was seen: so many
/// times in so many revisions.
const CHANGES_BEFORE: f64 = 0.8;
const REVISIONS_BEFORE: f64 = 8.0;

/// What packages that change by themselves add up to, however many there are:
/// they often do so in the same revision.
const MOST: f64 = 3.0;

/// Weighs events.
pub struct Model {
    /// The sums of the weights for each value of each byte of the events.
    sums: Vec<[f64; 256]>,
    /// How much the estimates from the graph count.
    trust: f64,
    /// What happens to each path.
    events: Vec<Events>,
}

impl Model {
    /// The model of `closure` by its history and its graph.
    #[must_use]
    pub fn new(closure: &Closure, history: &History) -> Self {
        let tracks: Vec<_> = closure.infos().iter().map(|info| history.track(&info.path)).collect();
        let rate = |id: NodeId| {
            (f64::from(tracks[id].own.count_ones()) + CHANGES_BEFORE) / (f64::from(tracks[id].age) + REVISIONS_BEFORE)
        };
        let rates: Vec<f64> = (0..closure.len()).map(rate).collect();
        let bits = bits(closure, &rates);
        let mut weights = vec![0.0_f64; WORDS * 64];
        let mut weight = 1.0;
        let mut seen = 0.0;
        for of_revision in weights.iter_mut().take(history.revisions.min(REVISIONS) as usize) {
            *of_revision = weight;
            seen += weight;
            weight *= FADING;
        }
        weights.iter_mut().take(64).for_each(|weight| *weight /= f64::max(seen, 1.0));
        for id in 0..closure.len() {
            let weight = &mut weights[64 + bits[id]];
            *weight = weight.max(rates[id]);
        }
        let mut events = vec![[0; WORDS]; closure.len()];
        for id in closure.references_first(0..closure.len()) {
            let mut set = [0; WORDS];
            set[0] = tracks[id].changed;
            set[1 + bits[id] / 64] |= 1 << (bits[id] % 64);
            for reference in closure.references(id) {
                for word in 1..WORDS {
                    set[word] |= events[*reference][word];
                }
            }
            events[id] = set;
        }
        Self { sums: sums(&weights), trust: f64::max(TRUST_AT_LEAST, TRUST / (TRUST + seen)), events }
    }

    /// What happens to the path with that number.
    #[must_use]
    pub fn events(&self, id: NodeId) -> &Events {
        &self.events[id]
    }

    /// In how many revisions from now on one of the events will happen.
    #[must_use]
    pub fn weight(&self, events: &Events) -> f64 {
        let sum_of = |word: usize| {
            if events[word] == 0 {
                return 0.0;
            }
            let [a, b, c, d, e, f, g, h] = events[word].to_le_bytes().map(usize::from);
            let sums = &self.sums[word * 8..word * 8 + 8];
            ((sums[0][a] + sums[1][b]) + (sums[2][c] + sums[3][d]))
                + ((sums[4][e] + sums[5][f]) + (sums[6][g] + sums[7][h]))
        };
        let seen = sum_of(0);
        let own = (1..WORDS).fold(0.0, |sum, word| sum + sum_of(word));
        HORIZON * ((1.0 - self.trust) * seen + self.trust * (MOST * own / (MOST + own)))
    }
}

/// The bit of each package: its own, or, where they do not suffice, one that it
/// shares, unless it matters much: that is, unless large paths need it.
fn bits(closure: &Closure, rates: &[f64]) -> Vec<usize> {
    if closure.len() <= PACKAGES {
        return (0..closure.len()).collect();
    }
    let mut bytes: Vec<f64> = closure.infos().iter().map(|info| info.nar_size as f64).collect();
    for id in 0..closure.len() {
        for reference in closure.references(id).iter().filter(|reference| **reference != id) {
            bytes[*reference] += closure.info(id).nar_size as f64;
        }
    }
    let matters = |id: &NodeId| rates[*id] * bytes[*id];
    let mut order: Vec<NodeId> = (0..closure.len()).collect();
    order.sort_by(|one, other| matters(other).total_cmp(&matters(one)).then(one.cmp(other)));
    let mut bits = vec![0; closure.len()];
    for (place, id) in order.into_iter().enumerate() {
        let own = PACKAGES - SHARED;
        bits[id] = if place < own { place } else { own + shared(&package(closure.info(id).path.name())) };
    }
    bits
}

/// One of the shared bits, by the FNV-1a hash of a name.
fn shared(name: &str) -> usize {
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    (hash % SHARED as u64) as usize
}

fn sums(weights: &[f64]) -> Vec<[f64; 256]> {
    let sum = |weights: &[f64], value: usize| {
        (0..8).filter(|bit| value >> bit & 1 == 1).fold(0.0, |sum, bit| sum + weights[bit])
    };
    weights.chunks(8).map(|weights| std::array::from_fn(|value| sum(weights, value))).collect()
}
