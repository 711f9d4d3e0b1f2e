//! Circles among paths, which only a forged or damaged narinfo can make.

use std::collections::HashMap;

/// The names that are in a circle, or that only lead to one another: of `graph`,
/// what is left when all go that have no reference in it, and then all that
/// nobody in it refers to. Reference to oneself is no circle.
#[must_use]
pub fn circles(graph: &HashMap<String, Vec<String>>) -> Vec<String> {
    let forward = peel(graph);
    let mut backward: HashMap<String, Vec<String>> = HashMap::new();
    for name in &forward {
        backward.entry(name.clone()).or_default();
        for reference in graph.get(name).into_iter().flatten() {
            backward.entry(reference.clone()).or_default().push(name.clone());
        }
    }
    backward.retain(|name, _| forward.binary_search(name).is_ok());
    peel(&backward)
}

/// What is left when all go that have no arrow, again and again, in order.
fn peel(graph: &HashMap<String, Vec<String>>) -> Vec<String> {
    let mut sources: HashMap<&str, Vec<&str>> = HashMap::new();
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for (name, targets) in graph {
        let targets = targets.iter().filter(|target| *target != name && graph.contains_key(*target));
        let mut count = 0;
        for target in targets {
            sources.entry(target).or_default().push(name);
            count += 1;
        }
        counts.insert(name, count);
    }
    let mut free: Vec<&str> = counts.iter().filter(|(_, count)| **count == 0).map(|(name, _)| *name).collect();
    while let Some(name) = free.pop() {
        counts.remove(name);
        for source in sources.remove(name).into_iter().flatten() {
            if let Some(count) = counts.get_mut(source) {
                *count -= 1;
                if *count == 0 {
                    free.push(source);
                }
            }
        }
    }
    let mut left: Vec<String> = counts.into_keys().map(str::to_owned).collect();
    left.sort();
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_in_a_circle_is_found() {
        let graph = |arrows: &[(&str, &str)]| {
            let mut graph: HashMap<String, Vec<String>> = HashMap::new();
            for (from, to) in arrows {
                graph.entry((*from).to_owned()).or_default().push((*to).to_owned());
                graph.entry((*to).to_owned()).or_default();
            }
            graph
        };
        assert!(circles(&graph(&[("a", "a"), ("a", "b"), ("c", "b"), ("c", "a")])).is_empty());
        let found = circles(&graph(&[("top", "a"), ("a", "b"), ("b", "c"), ("c", "a"), ("c", "leaf"), ("a", "a")]));
        assert_eq!(found, ["a", "b", "c"]);
    }
}
