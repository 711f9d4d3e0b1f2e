//! What builds of content-addressed derivations have made.
//!
//! With the experimental feature `ca-derivations`, Nix up to 2.34 has the tables `Realisations`
//! and `RealisationsRefs`; other databases have none of them, and no realisations here.
//!
//! Source: Nix's `src/libstore/ca-specific-schema.sql`, and `realisation.hh`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rusqlite::{Connection, OptionalExtension as _};

use super::{DatabaseError, StoreDb};
use crate::store::StorePath;

/// What one output of a derivation turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Realisation {
    /// The output: `sha256:HASH!NAME`, by the hash of the derivation modulo its inputs.
    pub id: String,
    /// The store path with its contents.
    pub out_path: StorePath,
    /// The realisations that it depends on, and their store paths.
    pub dependent: BTreeMap<String, StorePath>,
    /// Who stands for it.
    pub signatures: BTreeSet<String>,
}

impl StoreDb<'_> {
    /// The realisations that `paths` are the outputs of, those first that others depend on.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn realisations(&self, paths: &[&StorePath]) -> Result<Vec<Realisation>, DatabaseError> {
        let paths: BTreeSet<&StorePath> = paths.iter().copied().collect();
        self.read_realisations(|realisation| paths.contains(&realisation.out_path))
    }

    fn read_realisations(&self, is_wanted: impl Fn(&Realisation) -> bool) -> Result<Vec<Realisation>, DatabaseError> {
        self.read(|connection| {
            if !has_table(connection).map_err(|error| self.error(error))? {
                return Ok(Vec::new());
            }
            let mut found = self.query_realisations(connection)?;
            self.add_dependent(connection, &mut found)?;
            let wanted = found.iter().filter(|(_, found)| is_wanted(&found.realisation));
            let wanted: Vec<i64> = wanted.map(|(id, _)| *id).collect();
            Ok(in_order(found, wanted))
        })
    }

    /// What is called `ids`, and all that they depend on, which comes first.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn realisations_called(&self, ids: &BTreeSet<String>) -> Result<Vec<Realisation>, DatabaseError> {
        self.read_realisations(|realisation| ids.contains(&realisation.id))
    }

    /// The store path that the realisation `id` is, if there is one.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn realised(&self, id: &str) -> Result<Option<StorePath>, DatabaseError> {
        const QUERY: &str = "select v.path from Realisations r join ValidPaths v on v.id = r.outputPath
            where r.drvPath = ?1 and r.outputName = ?2";
        let Some((hash, output)) = id.split_once('!') else { return Ok(None) };
        self.read(|connection| {
            if !has_table(connection).map_err(|error| self.error(error))? {
                return Ok(None);
            }
            let path: Option<String> = connection
                .query_row(QUERY, [hash, output], |row| row.get(0))
                .optional()
                .map_err(|error| self.error(error))?;
            path.map(|path| self.parse(&path)).transpose()
        })
    }

    fn query_realisations(&self, connection: &Connection) -> Result<BTreeMap<i64, Found>, DatabaseError> {
        const QUERY: &str = "select r.id, r.drvPath, r.outputName, v.path, r.signatures
            from Realisations r join ValidPaths v on v.id = r.outputPath";
        let failed = |error| self.error(error);
        let mut query = connection.prepare(QUERY).map_err(failed)?;
        let mut rows = query.query([]).map_err(failed)?;
        let mut found = BTreeMap::new();
        while let Some(row) = rows.next().map_err(failed)? {
            let text = |column| row.get::<_, Option<String>>(column).map(Option::unwrap_or_default).map_err(failed);
            let realisation = Realisation {
                id: format!("{}!{}", text(1)?, text(2)?),
                out_path: self.parse(&text(3)?)?,
                dependent: BTreeMap::new(),
                signatures: text(4)?.split_whitespace().map(str::to_owned).collect(),
            };
            found.insert(row.get(0).map_err(failed)?, Found { realisation, depends_on: Vec::new() });
        }
        Ok(found)
    }

    fn add_dependent(&self, connection: &Connection, found: &mut BTreeMap<i64, Found>) -> Result<(), DatabaseError> {
        const QUERY: &str =
            "select referrer, realisationReference from RealisationsRefs where realisationReference is not null";
        let failed = |error| self.error(error);
        let mut query = connection.prepare(QUERY).map_err(failed)?;
        let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).map_err(failed)?;
        for row in rows {
            let (referrer, reference): (i64, i64) = row.map_err(failed)?;
            let Some(Realisation { id, out_path, .. }) = found.get(&reference).map(|found| found.realisation.clone())
            else {
                return Err(self.row(format!("realisation {referrer} depends on {reference}, which is not there")));
            };
            if let Some(found) = found.get_mut(&referrer) {
                found.realisation.dependent.insert(id, out_path);
                found.depends_on.push(reference);
            }
        }
        Ok(())
    }
}

/// A realisation, and the rows of those that it depends on.
struct Found {
    realisation: Realisation,
    depends_on: Vec<i64>,
}

fn has_table(connection: &Connection) -> rusqlite::Result<bool> {
    let query = "select 1 from sqlite_master where type = 'table' and name = 'Realisations'";
    Ok(connection.query_row(query, [], |_| Ok(())).optional()?.is_some())
}

/// Those of `wanted` and all that they depend on, which comes first.
fn in_order(found: BTreeMap<i64, Found>, wanted: Vec<i64>) -> Vec<Realisation> {
    let mut found: HashMap<i64, Found> = found.into_iter().collect();
    let mut ordered = Vec::new();
    let mut stack: Vec<i64> = wanted.into_iter().rev().collect();
    while let Some(id) = stack.last().copied() {
        match found.get_mut(&id) {
            // Taken already.
            None => drop(stack.pop()),
            Some(next) if next.depends_on.is_empty() => {
                stack.pop();
                ordered.extend(found.remove(&id).map(|found| found.realisation));
            }
            Some(next) => stack.append(&mut next.depends_on),
        }
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::closure::tests::path;

    #[test]
    fn what_others_depend_on_comes_first() {
        let found = |name: &str, depends_on: &[i64]| {
            let realisation = Realisation {
                id: name.to_owned(),
                out_path: path('a', "a"),
                dependent: BTreeMap::new(),
                signatures: BTreeSet::new(),
            };
            Found { realisation, depends_on: depends_on.to_vec() }
        };
        let all = || {
            BTreeMap::from([
                (1, found("1", &[3, 2])),
                (2, found("2", &[3])),
                (3, found("3", &[])),
                (4, found("4", &[])),
            ])
        };
        let names = |wanted: &[i64]| {
            in_order(all(), wanted.to_vec()).into_iter().map(|realisation| realisation.id).collect::<Vec<_>>()
        };
        assert_eq!(names(&[1, 2]), ["3", "2", "1"]);
        assert_eq!(names(&[4, 3]), ["4", "3"]);
        assert_eq!(names(&[]), Vec::<String>::new());
    }
}
