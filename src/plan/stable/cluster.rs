//! Puts paths together, the cheapest pair first.

use super::model::{Events, Model};
use crate::store::{Closure, NodeId};

/// How many groups are compared each with each other; smaller ones beyond that are
/// first put together with those that are most like them.
const COMPARED: usize = 800;

/// What one layer more costs, in bytes over the time that a plan should be good:
/// a request, an entry in the manifest, a folder for each container.
const LAYER: f64 = 2_000.0;

/// A path whose size nobody knows, in bytes.
const UNKNOWN_SIZE: u64 = 1 << 20;

/// So that an error of rounding can't make the least that a cost can be more than the
/// cost.
const NEARLY: f64 = 1.0 - 1e-9;

/// How often single paths are tried elsewhere.
const ROUNDS: usize = 6;

/// Paths that stay together.
#[derive(Clone)]
pub struct Item {
    paths: Vec<NodeId>,
    size: f64,
    events: Events,
    weight: f64,
    kept: Option<usize>,
}

/// Paths that will be a layer.
pub struct Group {
    /// The paths.
    pub paths: Vec<NodeId>,
    /// What happens to any of them.
    pub events: Events,
    /// In how many revisions that will be.
    pub weight: f64,
    /// The place of the layer in the previous plan, where it is one of that.
    pub kept: Option<usize>,
}

impl Item {
    /// `paths` as one item; `kept` where it is a layer that was there before.
    pub fn new(model: &Model, closure: &Closure, paths: Vec<NodeId>, kept: Option<usize>) -> Self {
        let mut events = Events::default();
        let mut size = 0.0;
        for id in &paths {
            events = union(&events, model.events(*id));
            let nar_size = closure.info(*id).nar_size;
            size += if nar_size == 0 { UNKNOWN_SIZE as f64 } else { nar_size as f64 };
        }
        Self { weight: model.weight(&events), paths, size, events, kept }
    }

    /// What has to be sent at once where the item does not stay as it is.
    fn at_once(&self) -> f64 {
        if self.kept.is_some() { self.size } else { 0.0 }
    }

    /// The bytes that are sent while the plan is good.
    fn cost(&self) -> f64 {
        self.size * self.weight
    }

    /// How much more is sent when the two are one.
    fn cost_of_joining(&self, other: &Self, model: &Model) -> f64 {
        let weight = weight_of_both(model, (&self.events, self.weight), (&other.events, other.weight));
        (self.size + other.size) * weight - self.cost() - other.cost() + self.at_once() + other.at_once() - LAYER
    }

    /// What [`cost_of_joining`](Self::cost_of_joining) is at least, told without
    /// weighing: both change at least as often as the one that does more often.
    fn least_cost_of_joining(&self, other: &Self) -> f64 {
        let weight = f64::max(self.weight, other.weight) * NEARLY;
        (self.size + other.size) * weight - self.cost() - other.cost() + self.at_once() + other.at_once() - LAYER
    }

    /// [`cost_of_joining`](Self::cost_of_joining), if it can be at most `most`.
    fn cost_of_joining_at_most(&self, other: &Self, model: &Model, most: f64) -> Option<f64> {
        (self.least_cost_of_joining(other) <= most).then(|| self.cost_of_joining(other, model))
    }

    fn join(&mut self, other: Self, model: &Model) {
        self.events = union(&self.events, &other.events);
        self.weight = model.weight(&self.events);
        self.size += other.size;
        self.paths.extend(other.paths);
        self.kept = None;
    }
}

/// The weight of two sets together, where each is known with its weight.
fn weight_of_both(model: &Model, one: (&Events, f64), other: (&Events, f64)) -> f64 {
    if has_all(one.0, other.0) {
        one.1
    } else if has_all(other.0, one.0) {
        other.1
    } else {
        model.weight(&union(one.0, other.0))
    }
}

/// Whether `one` has all that `other` has.
fn has_all(one: &Events, other: &Events) -> bool {
    one.iter().zip(other).fold(0, |rest, (one, other)| rest | (other & !one)) == 0
}

fn union(one: &Events, other: &Events) -> Events {
    std::array::from_fn(|word| one[word] | other[word])
}

/// Puts `items` together until there are at most `limit` groups, and further
/// where less is sent then.
pub fn cluster(model: &Model, items: Vec<Item>, limit: usize) -> Vec<Group> {
    let items = reduce(model, items, COMPARED.max(limit));
    let members = join_cheapest(model, &items, limit);
    let members = improve(model, &items, members, limit);
    let group = |members: Vec<usize>| {
        let mut group = items[members[0]].clone();
        for member in &members[1..] {
            group.join(items[*member].clone(), model);
        }
        Group { paths: group.paths, events: group.events, weight: group.weight, kept: group.kept }
    };
    members.into_iter().map(group).collect()
}

/// Joins small items that are alike until there are at most `most`: sorted by what
/// happens to them, neighbours are joined, the cheapest first.
fn reduce(model: &Model, mut items: Vec<Item>, most: usize) -> Vec<Item> {
    if items.len() <= most {
        return items;
    }
    // Stable sorts: among equals, the order of the paths decides.
    items.sort_by(|one, other| {
        let rank = |item: &Item| (item.kept.is_none(), item.kept);
        rank(one).cmp(&rank(other)).then_with(|| other.size.total_cmp(&one.size))
    });
    let mut small = items.split_off(most / 2);
    small.sort_by(|one, other| one.weight.total_cmp(&other.weight).then_with(|| one.events.cmp(&other.events)));
    let room = most - items.len();
    while small.len() > room {
        let mut costs: Vec<(f64, usize)> =
            small.windows(2).map(|pair| pair[0].cost_of_joining(&pair[1], model)).zip(0..).collect();
        costs.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
        let mut joins = vec![false; small.len()];
        let mut left = small.len() - room;
        for (_, place) in costs {
            // Each takes part in one join a round, so that costs stay true.
            let is_taken = joins[place] || joins[place + 1] || (place > 0 && joins[place - 1]);
            if left > 0 && !is_taken {
                joins[place] = true;
                left -= 1;
            }
        }
        let mut joined: Vec<Item> = Vec::with_capacity(small.len());
        for (place, item) in small.into_iter().enumerate() {
            match joined.last_mut() {
                Some(last) if joins[place - 1] => last.join(item, model),
                _ => joined.push(item),
            }
        }
        small = joined;
    }
    items.extend(small);
    items
}

/// The cheapest partner of an item. The cost is never too high, but may be too
/// low where the partner has gone.
#[derive(Clone, Copy)]
struct Partner {
    cost: f64,
    place: usize,
    is_sure: bool,
}

/// Joins the pair that costs least, and again, until there are few enough and
/// nothing more is gained; gives the items of each group.
fn join_cheapest(model: &Model, items: &[Item], limit: usize) -> Vec<Vec<usize>> {
    let mut groups: Vec<Option<(Item, Vec<usize>)>> =
        items.iter().cloned().zip(0..).map(|(item, place)| Some((item, vec![place]))).collect();
    let mut left = groups.len();
    let mut partners: Vec<Partner> = (0..groups.len()).map(|place| partner(model, &groups, place)).collect();
    while left > 1 {
        let cheapest = (0..groups.len()).filter(|place| groups[*place].is_some());
        let Some(place) = cheapest.min_by(|one, other| partners[*one].cost.total_cmp(&partners[*other].cost)) else {
            break;
        };
        if !partners[place].is_sure {
            partners[place] = partner(model, &groups, place);
            continue;
        }
        if left <= limit && partners[place].cost >= 0.0 {
            break;
        }
        let other = partners[place].place;
        let (Some((mut group, mut members)), Some((gone, more))) = (groups[place].take(), groups[other].take()) else {
            break;
        };
        group.join(gone, model);
        members.extend(more);
        groups[place] = Some((group, members));
        left -= 1;
        partners[place] = partner(model, &groups, place);
        update(model, &groups, &mut partners, place, other);
    }
    groups.into_iter().flatten().map(|(_, members)| members).collect()
}

/// Tells all others of the new group at `place`, and that the one at `gone` is no
/// more.
fn update(model: &Model, groups: &[Option<(Item, Vec<usize>)>], partners: &mut [Partner], place: usize, gone: usize) {
    let Some((new, _)) = &groups[place] else {
        return;
    };
    for (other, group) in groups.iter().enumerate().filter(|(other, _)| *other != place) {
        let Some((group, _)) = group else {
            continue;
        };
        let partner = &mut partners[other];
        if partner.place == place || partner.place == gone {
            partner.is_sure = false;
        }
        match group.cost_of_joining_at_most(new, model, partner.cost) {
            Some(cost) if cost <= partner.cost => *partner = Partner { cost, place, is_sure: true },
            _ => {}
        }
    }
}

fn partner(model: &Model, groups: &[Option<(Item, Vec<usize>)>], place: usize) -> Partner {
    let mut best = Partner { cost: f64::INFINITY, place, is_sure: true };
    let Some((group, _)) = &groups[place] else {
        return best;
    };
    for (other, candidate) in groups.iter().enumerate().filter(|(other, _)| *other != place) {
        if let Some((candidate, _)) = candidate {
            match group.cost_of_joining_at_most(candidate, model, best.cost) {
                Some(cost) if cost < best.cost => best = Partner { cost, place: other, is_sure: true },
                _ => {}
            }
        }
    }
    best
}

/// Moves single items to other groups where less is sent then. Layers that stay
/// are left alone.
fn improve(model: &Model, items: &[Item], mut groups: Vec<Vec<usize>>, limit: usize) -> Vec<Vec<usize>> {
    let stays = |members: &[usize]| members.len() == 1 && items[members[0]].kept.is_some();
    let mut sums: Vec<Sum> = groups.iter().map(|members| Sum::of(model, items, members)).collect();
    for _ in 0..ROUNDS {
        let mut has_moved = false;
        for item in 0..items.len() {
            let Some(from) = groups.iter().position(|members| members.contains(&item)) else {
                continue;
            };
            if stays(&groups[from]) {
                continue;
            }
            let mut without = sums[from].clone();
            without.remove(model, &items[item]);
            let gain = sums[from].cost() - without.cost();
            // Less than a byte is not worth a move, and may be an error of rounding.
            let mut best = (gain - 1.0, None);
            for to in (0..groups.len()).filter(|to| *to != from && !stays(&groups[*to])) {
                if sums[to].least_cost_with(&items[item]) - sums[to].cost() > best.0 {
                    continue;
                }
                let cost = sums[to].cost_with(model, &items[item]) - sums[to].cost();
                if cost < best.0 {
                    best = (cost, Some(to));
                }
            }
            if groups.len() < limit && groups[from].len() > 1 && items[item].cost() + LAYER < best.0 {
                best = (0.0, Some(groups.len()));
                groups.push(Vec::new());
                sums.push(Sum::of(model, items, &[]));
            }
            if let (_, Some(to)) = best {
                groups[from].retain(|member| *member != item);
                groups[to].push(item);
                sums[from] = without;
                sums[to].add(model, &items[item]);
                has_moved = true;
                if groups[from].is_empty() {
                    groups.remove(from);
                    sums.remove(from);
                }
            }
        }
        if !has_moved {
            break;
        }
    }
    groups
}

/// What a group's cost is made of, such that items can leave it.
#[derive(Clone)]
struct Sum {
    size: f64,
    events: Events,
    weight: f64,
    counts: Vec<u16>,
}

impl Sum {
    fn of(model: &Model, items: &[Item], members: &[usize]) -> Self {
        let events = Events::default();
        let mut sum = Self { size: 0.0, weight: model.weight(&events), counts: vec![0; events.len() * 64], events };
        for member in members {
            sum.add(model, &items[*member]);
        }
        sum
    }

    fn add(&mut self, model: &Model, item: &Item) {
        self.weight = weight_of_both(model, (&self.events, self.weight), (&item.events, item.weight));
        self.size += item.size;
        self.events = union(&self.events, &item.events);
        each_bit(&item.events, |bit| self.counts[bit] += 1);
    }

    fn remove(&mut self, model: &Model, item: &Item) {
        let before = self.events;
        self.size -= item.size;
        each_bit(&item.events, |bit| {
            self.counts[bit] -= 1;
            if self.counts[bit] == 0 {
                self.events[bit / 64] &= !(1 << (bit % 64));
            }
        });
        if self.events != before {
            self.weight = model.weight(&self.events);
        }
    }

    fn cost(&self) -> f64 {
        self.size * self.weight
    }

    fn cost_with(&self, model: &Model, item: &Item) -> f64 {
        (self.size + item.size) * weight_of_both(model, (&self.events, self.weight), (&item.events, item.weight))
    }

    /// What [`cost_with`](Self::cost_with) is at least.
    fn least_cost_with(&self, item: &Item) -> f64 {
        (self.size + item.size) * f64::max(self.weight, item.weight) * NEARLY
    }
}

fn each_bit(events: &Events, mut visit: impl FnMut(usize)) {
    for (word, bits) in events.iter().enumerate() {
        let mut bits = *bits;
        while bits != 0 {
            visit(word * 64 + bits.trailing_zeros() as usize);
            bits &= bits - 1;
        }
    }
}
