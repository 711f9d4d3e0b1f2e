//! The image's Nix database, written without Nix: the same bytes everywhere.
//!
//! SQLite writes it in memory, in one order, and serialises it; the fields of
//! the file's header that count changes and name SQLite's version are then
//! zero. It is in rollback mode, so that readers who may not write can open it;
//! Nix turns on WAL by itself.
//!
//! Source of the schema and of the columns' forms: Nix 2.8,
//! `src/libstore/schema.sql` and `local-store.cc` (`addValidPath`).

use std::collections::HashMap;

use rusqlite::{Connection, MAIN_DB, params};

use crate::store::derivation::DeclaredOutput;
use crate::store::{Closure, NodeId};

/// The version of the schema, as the file `db/schema` must have it, to the byte.
pub const SCHEMA_VERSION: &str = "10";

/// When all paths were registered, in seconds since 1970.
const REGISTRATION_TIME: i64 = 1;

const TABLES: &str = "
create table ValidPaths (
    id               integer primary key autoincrement not null,
    path             text unique not null,
    hash             text not null,
    registrationTime integer not null,
    deriver          text,
    narSize          integer,
    ultimate         integer,
    sigs             text,
    ca               text
);
create table Refs (
    referrer  integer not null,
    reference integer not null,
    primary key (referrer, reference),
    foreign key (referrer) references ValidPaths(id) on delete cascade,
    foreign key (reference) references ValidPaths(id) on delete restrict
);
create table DerivationOutputs (
    drv  integer not null,
    id   text not null,
    path text not null,
    primary key (drv, id),
    foreign key (drv) references ValidPaths(id) on delete cascade
);
";

/// Made after the rows, which is quicker and gives smaller files.
const INDEXES: &str = "
create index IndexReferrer on Refs(referrer);
create index IndexReference on Refs(reference);
create trigger DeleteSelfRefs before delete on ValidPaths
  begin
    delete from Refs where referrer = old.id and reference = old.id;
  end;
create index IndexDerivationOutputs on DerivationOutputs(path);
";

/// Nix makes these once content-addressed derivations are switched on, unless they are there; up to
/// 2.34. Source: `src/libstore/ca-specific-schema.sql` of 2.8.
pub const REALISATIONS: &str = "
create table Realisations (
    id integer primary key autoincrement not null,
    drvPath text not null,
    outputName text not null,
    outputPath integer not null,
    signatures text,
    foreign key (outputPath) references ValidPaths(id) on delete cascade
);
create index IndexRealisations on Realisations(drvPath, outputName);
create table RealisationsRefs (
    referrer integer not null,
    realisationReference integer,
    foreign key (referrer) references Realisations(id) on delete cascade,
    foreign key (realisationReference) references Realisations(id) on delete restrict
);
create index IndexRealisationsRefs on RealisationsRefs(referrer);
create index IndexRealisationsRefsOnOutputPath on Realisations(outputPath);
";

/// The database with a row for each path of `closure`; `outputs` are those of the closure's
/// derivations. A path's deriver is the first of these that declares it, whichever has made it
/// where the image is built; otherwise it is kept where it is in the closure. Realisations
/// have tables where there are any.
///
/// # Errors
/// When SQLite fails, which it does only for want of memory.
pub fn serialise(closure: &Closure, outputs: &[DeclaredOutput]) -> rusqlite::Result<Vec<u8>> {
    let mut connection = Connection::open_in_memory()?;
    connection.execute_batch("pragma page_size = 4096; pragma encoding = 'UTF-8'; pragma auto_vacuum = 0;")?;
    connection.execute_batch(TABLES)?;
    let transaction = connection.transaction()?;
    insert_paths(&transaction, closure, outputs)?;
    insert_references(&transaction, closure)?;
    insert_outputs(&transaction, outputs)?;
    transaction.execute_batch(INDEXES)?;
    if closure.infos().iter().any(|info| !info.realisations.is_empty()) {
        transaction.execute_batch(REALISATIONS)?;
        insert_realisations(&transaction, closure)?;
    }
    transaction.commit()?;
    Ok(connection.serialize(MAIN_DB)?.to_vec())
}

fn insert_paths(connection: &Connection, closure: &Closure, outputs: &[DeclaredOutput]) -> rusqlite::Result<()> {
    let mut derivers: HashMap<&str, NodeId> = HashMap::new();
    for output in outputs {
        derivers.entry(&output.path).or_insert(output.derivation);
    }
    let mut insert = connection.prepare(
        "insert into ValidPaths (id, path, hash, registrationTime, deriver, narSize, ca) values (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    for (id, info) in closure.infos().iter().enumerate() {
        let path = closure.print(id);
        let declaring = derivers.get(&*path).copied();
        let deriver = declaring.or_else(|| closure.find(info.deriver.as_ref()?)).map(|deriver| closure.print(deriver));
        // Nix leaves out a size that it does not know.
        let nar_size = (info.nar_size != 0).then(|| info.nar_size.cast_signed());
        insert.execute(params![
            row(id),
            path,
            format!("sha256:{}", info.nar_hash.to_hex()),
            REGISTRATION_TIME,
            deriver,
            nar_size,
            info.ca,
        ])?;
    }
    Ok(())
}

fn insert_references(connection: &Connection, closure: &Closure) -> rusqlite::Result<()> {
    let mut insert = connection.prepare("insert into Refs (referrer, reference) values (?1, ?2)")?;
    for referrer in 0..closure.len() {
        for reference in closure.references(referrer) {
            insert.execute([row(referrer), row(*reference)])?;
        }
    }
    Ok(())
}

fn insert_outputs(connection: &Connection, outputs: &[DeclaredOutput]) -> rusqlite::Result<()> {
    let mut insert = connection.prepare("insert into DerivationOutputs (drv, id, path) values (?1, ?2, ?3)")?;
    for output in outputs {
        insert.execute(params![row(output.derivation), output.name, output.path])?;
    }
    Ok(())
}

fn insert_realisations(connection: &Connection, closure: &Closure) -> rusqlite::Result<()> {
    let mut insert = connection.prepare(
        "insert into Realisations (id, drvPath, outputName, outputPath, signatures) values (?1, ?2, ?3, ?4, '')",
    )?;
    let mut refer =
        connection.prepare("insert into RealisationsRefs (referrer, realisationReference) values (?1, ?2)")?;
    let mut rows: HashMap<&str, i64> = HashMap::new();
    for (path, info) in closure.infos().iter().enumerate() {
        for name in info.realisations.keys() {
            if let Some((hash, output)) = name.split_once('!') {
                let own = rows.len() as i64 + 1;
                insert.execute(params![own, hash, output, row(path)])?;
                rows.insert(name, own);
            }
        }
    }
    // Only now all of them have numbers.
    for (name, depends_on) in closure.infos().iter().flat_map(|info| &info.realisations) {
        for other in depends_on {
            if let (Some(own), Some(other)) = (rows.get(&**name), rows.get(&**other)) {
                refer.execute([own, other])?;
            }
        }
    }
    Ok(())
}

/// SQLite numbers rows from 1.
fn row(id: NodeId) -> i64 {
    id as i64 + 1
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::store::StoreDir;
    use crate::store::closure::tests::{info, path};

    fn closure() -> Closure {
        let (a, b, drv) = (path('a', "a"), path('b', "b"), path('c', "a.drv"));
        let mut a_info = info(&a, &[&a, &b]);
        a_info.deriver = Some(drv.clone());
        a_info.ca = Some("fixed:r:sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73".to_owned());
        let mut b_info = info(&b, &[]);
        b_info.deriver = Some(path('d', "b.drv"));
        Closure::new(&StoreDir::default(), vec![a_info, b_info, info(&drv, &[])], None).expect("closed")
    }

    #[test]
    fn rows_are_in_the_forms_that_nix_writes() {
        let output = |name: &str, path: String| DeclaredOutput { derivation: 2, name: name.to_owned(), path };
        let outputs = [output("out", "/nix/store/x".to_owned())];
        let bytes = serialise(&closure(), &outputs).expect("memory");
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), &bytes).expect("writable");
        let database = Connection::open(file.path()).expect("a database");
        let text = |query: &str| database.query_row(query, [], |row| row.get::<_, Option<String>>(0)).expect(query);
        assert_eq!(text("select hash from ValidPaths where id = 1"), Some(format!("sha256:{}", "07".repeat(32))));
        assert!(text("select deriver from ValidPaths where id = 1").expect("there").ends_with("-a.drv"));
        assert_eq!(text("select deriver from ValidPaths where id = 2"), None);
        assert!(text("select ca from ValidPaths where id = 1").expect("there").starts_with("fixed:r:"));
        assert_eq!(text("select group_concat(referrer || '>' || reference) from Refs"), Some("1>1,1>2".to_owned()));
        assert_eq!(text("select drv || id || path from DerivationOutputs"), Some("3out/nix/store/x".to_owned()));
        assert_eq!(text("pragma integrity_check"), Some("ok".to_owned()));
        // Whatever has made it, a derivation in the closure declares it.
        let declared = serialise(&closure(), &[output("dev", closure().print(1))]).expect("memory");
        std::fs::write(file.path(), &declared).expect("writable");
        let database = Connection::open(file.path()).expect("a database");
        let deriver: String =
            database.query_row("select deriver from ValidPaths where id = 2", [], |row| row.get(0)).expect("there");
        assert!(deriver.ends_with("-a.drv"), "{deriver}");
        assert_eq!(text("select cast(max(registrationTime) as text) from ValidPaths"), Some("1".to_owned()));
    }

    #[test]
    fn realisations_have_rows_whatever_they_are_called() {
        let mut closure = closure();
        let names = ["sha256:b!out", "sha256:a!dev", "sha256:c!out"].map(str::to_owned);
        closure.add_realisation(0, names[0].clone(), [names[1].clone(), names[2].clone()].into());
        closure.add_realisation(0, names[1].clone(), BTreeSet::new());
        closure.add_realisation(1, names[2].clone(), ["sha256:unknown!out".to_owned()].into());
        let bytes = serialise(&closure, &[]).expect("memory");
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), &bytes).expect("writable");
        let database = Connection::open(file.path()).expect("a database");
        let all = |query: &str| -> Vec<String> {
            let mut query = database.prepare(query).expect("valid");
            let rows = query.query_map([], |row| row.get(0)).expect("rows");
            rows.collect::<Result<_, _>>().expect("texts")
        };
        let rows =
            "select drvPath || outputName || outputPath || '<' || signatures || '>' from Realisations order by id";
        assert_eq!(all(rows), ["sha256:adev1<>", "sha256:bout1<>", "sha256:cout2<>"]);
        let refs = "select r.drvPath || '>' || d.drvPath from RealisationsRefs x
            join Realisations r on r.id = x.referrer join Realisations d on d.id = x.realisationReference order by 1";
        assert_eq!(all(refs), ["sha256:b>sha256:a", "sha256:b>sha256:c"]);
    }

    #[test]
    fn the_header_tells_nothing_of_this_machine_and_needs_no_wal() {
        let bytes = serialise(&closure(), &[]).expect("memory");
        // SQLite's file format: 18 and 19 are 1 for rollback journals, 24 to 27
        // count changes, 92 to 99 name the version that changed it last.
        assert_eq!(bytes[18..20], [1, 1]);
        assert_eq!((&bytes[24..28], &bytes[92..100]), (&[0; 4][..], &[0; 8][..]));
        assert_eq!(bytes, serialise(&closure(), &[]).expect("memory"));
    }
}
