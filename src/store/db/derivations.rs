//! What a Nix database knows of derivations: which paths they declare, and which they have made.
//!
//! `DerivationOutputs` has a row for each output whose path a registered derivation declares; the
//! path need not be valid. Those of content-addressed derivations are among the realisations.

use std::collections::BTreeMap;

use rusqlite::OptionalExtension as _;

use super::{DatabaseError, StoreDb};
use crate::store::StorePath;

impl StoreDb<'_> {
    /// The valid outputs of the derivation `drv`: those that it declares, and
    /// those that name it as their deriver.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn outputs(&self, drv: &StorePath) -> Result<Vec<StorePath>, DatabaseError> {
        const QUERY: &str = "select path from ValidPaths where deriver = ?1
            union select o.path from DerivationOutputs o
                join ValidPaths d on d.id = o.drv join ValidPaths v on v.path = o.path where d.path = ?1";
        self.paths(QUERY, &self.location.print(drv))
    }

    /// The valid derivations that have `path` among their outputs, be it valid or not.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn derivations(&self, path: &StorePath) -> Result<Vec<StorePath>, DatabaseError> {
        const QUERY: &str = "select d.path from DerivationOutputs o join ValidPaths d on d.id = o.drv
            where o.path = ?1 order by d.path";
        self.paths(QUERY, &self.location.print(path))
    }

    /// The derivation that the registration of `path` names, be it valid or not.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn deriver(&self, path: &StorePath) -> Result<Option<StorePath>, DatabaseError> {
        const QUERY: &str = "select deriver from ValidPaths where path = ?1";
        self.read(|connection| {
            let deriver: Option<Option<String>> = connection
                .query_row(QUERY, [self.location.print(path)], |row| row.get(0))
                .optional()
                .map_err(|error| self.error(error))?;
            // Some say `unknown-deriver`.
            Ok(deriver.flatten().and_then(|deriver| self.parse(&deriver).ok()))
        })
    }

    /// The valid derivations of that name, without `.drv`, in the order in which they were registered.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn derivations_named(&self, name: &str) -> Result<Vec<StorePath>, DatabaseError> {
        const QUERY: &str = "select path from ValidPaths where substr(path, -length(?1)) = ?1 order by id";
        let mut found = self.paths(QUERY, &format!("-{name}.drv"))?;
        // Another name may end so.
        found.retain(|path| path.name().strip_suffix(".drv") == Some(name));
        Ok(found)
    }

    /// The paths that `query` gives for its parameter.
    fn paths(&self, query: &str, parameter: &str) -> Result<Vec<StorePath>, DatabaseError> {
        self.read(|connection| {
            let failed = |error| self.error(error);
            let mut query = connection.prepare(query).map_err(failed)?;
            let rows = query.query_map([parameter], |row| row.get::<_, String>(0)).map_err(failed)?;
            rows.map(|row| self.parse(&row.map_err(failed)?)).collect()
        })
    }

    /// The outputs that the valid derivation `drv` declares, by their names, valid or not.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn declared(&self, drv: &StorePath) -> Result<BTreeMap<String, StorePath>, DatabaseError> {
        const QUERY: &str =
            "select o.id, o.path from DerivationOutputs o join ValidPaths d on d.id = o.drv where d.path = ?1";
        self.read(|connection| {
            let failed = |error| self.error(error);
            let mut query = connection.prepare(QUERY).map_err(failed)?;
            let rows = query.query_map([self.location.print(drv)], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)));
            let output = |row: rusqlite::Result<(String, String)>| {
                let (name, path) = row.map_err(failed)?;
                Ok((name, self.parse(&path)?))
            };
            rows.map_err(failed)?.map(output).collect()
        })
    }
}
