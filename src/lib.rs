//! stowage gets what Nix builds into container images and binary caches.
//!
//! Data flows in one direction, and each arrow is a value:
//!
//! ```text
//! argv, env, spec ─► Settings ─► roots ─► registrations ─► Closure ─► LayerPlan ─► layers ─► Image ─► Destination
//!                                                             │                      ▲
//!                                                             └─► cache          layer index
//! ```
//!
//! # The map
//!
//! Every file with its duty; *pure* ones touch no file, clock, environment or
//! process. `tests/architecture.rs` keeps this list true.
//!
//! | file | duty | |
//! |---|---|---|
//! | `build.rs` | from a closure to an image at its destinations, in a straight line | IO |
//! | `build/base.rs` | what an image has from its parent | pure |
//! | `build/copy.rs` | from an image to another place for it | IO |
//! | `build/index.rs` | from images for several platforms to one index of them | IO |
//! | `build/layer.rs` | makes a layer ahead | IO |
//! | `build/layers.rs` | which layers an image has, and how many | IO |
//! | `build/merge.rs` | from several images to one archive of them | IO |
//! | `build/plans.rs` | remembers plans | IO |
//! | `build/precompute.rs` | finds out an image's store layers ahead | IO |
//! | `cache/beneath.rs` | opens and writes files below a folder, and nowhere else | IO |
//! | `cache/beneath/manage.rs` | looks around below a folder, moves and deletes | IO |
//! | `cache/beneath/temporary.rs` | files that have no name of their own yet | IO |
//! | `cache/beside.rs` | writes on a thread of its own | pure |
//! | `cache/bucket.rs` | a cache's files in a bucket | IO |
//! | `cache/bucket/tests.rs` | tests of caches in buckets, where others write, too | IO |
//! | `cache/bucket/tests/races.rs` | tests of what others do at the worst moment | IO |
//! | `cache/check.rs` | finds what is damaged in a cache, and puts it aside | IO |
//! | `cache/check/cache_info.rs` | judges a `nix-cache-info` | pure |
//! | `cache/check/deep.rs` | compares a NAR with its narinfo | IO |
//! | `cache/check/fault.rs` | what can be wrong with a file of a cache | pure |
//! | `cache/check/graph.rs` | circles among references | pure |
//! | `cache/check/metadata.rs` | judges a narinfo | pure |
//! | `cache/check/quarantine.rs` | moves what is bad out of Nix's sight | IO |
//! | `cache/check/realisations.rs` | judges realisations | pure |
//! | `cache/check/siblings.rs` | outputs whose siblings are lost | pure |
//! | `cache/check/traces.rs` | what tells of paths that a cache has lost | IO |
//! | `cache/compress.rs` | writes one NAR, compressed and verified | IO |
//! | `cache/compression.rs` | the forms that NARs can have in a cache | pure |
//! | `cache/export.rs` | exports a closure on all processors | IO |
//! | `cache/extras.rs` | adds listings and build logs beside NARs | IO |
//! | `cache/folder.rs` | a cache that is added to: what is there, and how more gets there | IO |
//! | `cache/folder/tests.rs` | tests of it | IO |
//! | `cache/gc.rs` | makes a cache smaller | IO |
//! | `cache/gc/lease.rs` | who deletes from a cache is alone | IO |
//! | `cache/gc/plan.rs` | what goes from a cache, and in which order | pure |
//! | `cache/gc/removal.rs` | deletes from a cache, and leaves it whole | IO |
//! | `cache/info.rs` | a cache in numbers | IO |
//! | `cache/key_file.rs` | reads secret keys from files | IO |
//! | `cache/listing.rs` | lists the files of a NAR | pure |
//! | `cache/mod.rs` | what a binary cache is | pure |
//! | `cache/narinfo.rs` | writes and checks narinfos | pure |
//! | `cache/options.rs` | how to export | pure |
//! | `cache/order.rs` | in which order paths are exported | pure |
//! | `cache/place.rs` | where a cache is: the one list of places | IO |
//! | `cache/realisation.rs` | says what content-addressed derivations have made | IO |
//! | `cache/resolve.rs` | finds the cache's folder without trusting links | IO |
//! | `cache/scan.rs` | reads what is in a cache | IO |
//! | `cache/setup.rs` | what a job sets to use a cache | pure |
//! | `cache/shelf.rs` | a cache's files, whatever they are in | IO |
//! | `cache/sign.rs` | signs narinfos | pure |
//! | `cache/trust.rs` | whether a Nix daemon does what its client says | pure |
//! | `cache/usage.rs` | when the paths of a cache were last used | IO |
//! | `cache/usage/text.rs` | records of use as text | pure |
//! | `cli/args.rs` | the command line as clap reads it | pure |
//! | `cli/args/cache.rs` | the arguments of `stowage cache` and `stowage env` | pure |
//! | `cli/args/copy.rs` | the arguments of `stowage copy` and `stowage index` | pure |
//! | `cli/args/layer.rs` | the arguments of `stowage layer` | pure |
//! | `cli/args/look.rs` | the arguments of what looks at images | pure |
//! | `cli/args/needs.rs` | the arguments for what an image has so that something can be built in it | pure |
//! | `cli/build.rs` | `stowage build` | IO |
//! | `cli/built_layers.rs` | the layers of an image that were made ahead | IO |
//! | `cli/cache.rs` | `stowage cache` | IO |
//! | `cli/cache_check.rs` | `stowage cache check`, `gc` and `info` | IO |
//! | `cli/cache_store.rs` | `stowage cache` for caches that are stores | IO |
//! | `cli/copy.rs` | `stowage copy` | IO |
//! | `cli/diff.rs` | `stowage diff` | IO |
//! | `cli/earlier.rs` | reads earlier images and plans | IO |
//! | `cli/enter.rs` | `stowage enter` | IO |
//! | `cli/env.rs` | `stowage env` | IO |
//! | `cli/exit.rs` | what exit codes say | pure |
//! | `cli/export.rs` | how to export, as the command line says | IO |
//! | `cli/gather.rs` | gathers the store paths of an image | IO |
//! | `cli/gather/derivations.rs` | derivations that no list of registrations tells of | IO |
//! | `cli/gather/made.rs` | what is made for an image's `/`, and what it refers to | IO |
//! | `cli/gather/volatile.rs` | what of an image changes often | pure |
//! | `cli/hook.rs` | `stowage hook` | IO |
//! | `cli/index.rs` | `stowage index` | IO |
//! | `cli/inspect.rs` | `stowage inspect` | IO |
//! | `cli/install.rs` | `stowage hook --install` | IO |
//! | `cli/lay_out.rs` | `stowage lay-out` | IO |
//! | `cli/layer.rs` | `stowage layer` | IO |
//! | `cli/layer_index.rs` | who else knows layers, as `--layer-index` names them | IO |
//! | `cli/manual.rs` | completions and manual pages | IO |
//! | `cli/mod.rs` | runs the command that was typed | IO |
//! | `cli/output.rs` | sizes, tables, progress and the log | IO |
//! | `cli/parent.rs` | finds the image that another is built on | IO |
//! | `cli/paths.rs` | which store paths the command line means | IO |
//! | `cli/plan.rs` | `stowage plan` | IO |
//! | `cli/precompute.rs` | what the hook does for a spec's `precompute` | IO |
//! | `cli/settings.rs` | what arguments and environment mean; the only reader of the environment | IO |
//! | `cli/wait.rs` | `stowage cache init` and `stowage cache wait` | IO |
//! | `cli/why.rs` | `stowage why` | IO |
//! | `cli/worker.rs` | `stowage worker` | IO |
//! | `codec.rs` | codecs with levels, as people write them | pure |
//! | `daemon.rs` | asks the Docker daemon | IO |
//! | `daemon/socket.rs` | HTTP over a Unix socket | IO |
//! | `destination/archive_file.rs` | the file of an archive, whole or not at all | IO |
//! | `destination/blobs.rs` | a folder of blobs, each there only once it is complete | IO |
//! | `destination/docker_archive.rs` | docker archives, streamed in one pass | IO |
//! | `destination/docker_daemon.rs` | the Docker daemon, streamed to | IO |
//! | `destination/folder.rs` | image folders, whose store layers are named, not written | IO |
//! | `destination/mod.rs` | what a destination is | IO |
//! | `destination/oci_archive.rs` | OCI archives, streamed | IO |
//! | `destination/oci_layout.rs` | OCI layouts | IO |
//! | `destination/reference.rs` | names of places for images | pure |
//! | `destination/registry.rs` | images in registries | IO |
//! | `destination/registry/uploads.rs` | sends blobs side by side | IO |
//! | `digest.rs` | SHA-256 digests as OCI writes them, and what computes them of what is written | pure |
//! | `fs.rs` | files that appear whole or not at all, and reading what is a file | IO |
//! | `hook.rs` | what Nix tells its post-build hook, and what is done then | IO |
//! | `hook/config.rs` | the hook's configuration | IO |
//! | `image/config.rs` | the image's config | pure |
//! | `image/contents.rs` | lays out contents at `/` | IO |
//! | `image/contents/links.rs` | follows links within the store | IO |
//! | `image/contents/stored.rs` | a layout as the layer index remembers it | pure |
//! | `image/contents/tests.rs` | tests of the layout | IO |
//! | `image/extras.rs` | what an image has beside its contents, and why | pure |
//! | `image/ground.rs` | where a layer's entries belong on a parent's file system | pure |
//! | `image/inherit.rs` | what a parent's config hands on | pure |
//! | `image/items.rs` | the entries of a layer that is made in memory | IO |
//! | `image/items/tests.rs` | tests of the items | IO |
//! | `image/items/through.rs` | follows links of a layer that is made | pure |
//! | `image/keys.rs` | which keys a spec may have | pure |
//! | `image/kinds.rs` | which kind of value each key of a spec has | pure |
//! | `image/made.rs` | files that were made for an image's `/` | pure |
//! | `image/manifest.rs` | manifests | pure |
//! | `image/mod.rs` | what an image is | pure |
//! | `image/name.rs` | image names, as Docker takes them | pure |
//! | `image/nix_conf.rs` | merges the settings of nix.conf | pure |
//! | `image/nixdb.rs` | the image's Nix database, written in memory | pure |
//! | `image/note.rs` | what manifests tell others of layers | pure |
//! | `image/perms.rs` | owners and modes of files at `/` | pure |
//! | `image/platform.rs` | the machines that images are for | pure |
//! | `image/spec.rs` | what an image is to be | pure |
//! | `image/spec/check.rs` | values of a spec that can't be | pure |
//! | `image/spec/error.rs` | what can be wrong with a spec | pure |
//! | `image/spec/tests.rs` | tests of the spec | pure |
//! | `image/spec/values.rs` | what single keys of a spec say | pure |
//! | `image/system.rs` | the system layer | IO |
//! | `image/system/made.rs` | what was made for this image alone | IO |
//! | `image/system/state.rs` | Nix's own state in an image: its database, and roots | IO |
//! | `image/system/tests.rs` | tests of the system layer | pure |
//! | `image/trees.rs` | source trees in an image, and how Nix finds them there | pure |
//! | `image/user.rs` | the image's user | pure |
//! | `inputs/missing.rs` | what a derivation needs and a store has not | pure |
//! | `inputs/mod.rs` | what it takes to run a derivation's builder, and nothing else | pure |
//! | `inputs/modulo.rs` | the names that Nix gives to what content-addressed derivations have made | pure |
//! | `inputs/store.rs` | looks at derivations in a store | IO |
//! | `inputs/tests.rs` | tests of what it takes | pure |
//! | `layer/blob.rs` | layers that are there already, taken as they are | pure |
//! | `layer/built.rs` | layers that were made ahead, as small files | IO |
//! | `layer/chunks.rs` | a layer's bytes in chunks | pure |
//! | `layer/compress.rs` | the forms that a layer's bytes can have | pure |
//! | `layer/compress/block.rs` | compresses one block of a layer | pure |
//! | `layer/compress/encoder.rs` | compresses layers and large NARs on some threads | pure |
//! | `layer/deliver.rs` | makes layers on all processors and hands them to a destination | IO |
//! | `layer/deliver/archive.rs` | layers for archives, one after the other | IO |
//! | `layer/deliver/memory.rs` | bounds what is in memory of layers, and of NARs that are sent | pure |
//! | `layer/elf.rs` | the architecture of a program | pure |
//! | `layer/index.rs` | remembers layers by their keys | IO |
//! | `layer/index/known.rs` | layers that somebody else tells of | pure |
//! | `layer/index/shared.rs` | a folder of records that others write, too | IO |
//! | `layer/key.rs` | the layer key | pure |
//! | `layer/mod.rs` | what is known of a layer | pure |
//! | `layer/pack.rs` | store paths to tar bytes, in one pass | IO |
//! | `layer/stream.rs` | the ways that a layer's chunks go | pure |
//! | `layer/tar.rs` | tar headers; layer tar v1 | pure |
//! | `local_store/begin.rs` | a job's begin: looks at all of a store, and makes it read-only | IO |
//! | `local_store/collect.rs` | makes a store smaller | IO |
//! | `local_store/database.rs` | changes a store's Nix database | IO |
//! | `local_store/end.rs` | a job's end: makes a store what an archive can hold | IO |
//! | `local_store/info.rs` | a store between jobs, in numbers | IO |
//! | `local_store/mod.rs` | a cache that is a store | IO |
//! | `local_store/modes.rs` | modes and times of a store path's files | IO |
//! | `local_store/namespaces.rs` | whether Nix may make the namespaces that it needs | IO |
//! | `local_store/notes.rs` | what is noted of a store between jobs | IO |
//! | `local_store/seed.rs` | puts an image's store where `/nix` leads | IO |
//! | `local_store/tests.rs` | tests of it | IO |
//! | `local_store/used.rs` | what a job's results needed | IO |
//! | `mark.rs` | what the database held when a job began | IO |
//! | `nar.rs` | store paths to NARs | IO |
//! | `nar/read.rs` | reads NARs that nobody vouches for | pure |
//! | `nar/read/tests.rs` | tests of the reader | pure |
//! | `nix_conf.rs` | reads nix.conf line by line | pure |
//! | `parallel.rs` | does the same with many things at once | pure |
//! | `parent/blob.rs` | files and parts of files, whatever happens to their names | IO |
//! | `parent/compression.rs` | compressed layers and archives | pure |
//! | `parent/database.rs` | reads the Nix database of an image | IO |
//! | `parent/error.rs` | why a parent can't be read | pure |
//! | `parent/files.rs` | the files that an image is saved in | IO |
//! | `parent/find.rs` | finds an image's config and layers among files | IO |
//! | `parent/layers.rs` | checks layers, and lays one upon the other | IO |
//! | `parent/look.rs` | looks into layers again for the files of some paths | IO |
//! | `parent/merge.rs` | merges registrations with those of a parent | pure |
//! | `parent/mod.rs` | what is known of a parent image | pure |
//! | `parent/overlay.rs` | what layers hide of each other | pure |
//! | `parent/parts.rs` | the parts of an image that is only copied | IO |
//! | `parent/read.rs` | reads a parent, in a straight line | IO |
//! | `parent/references.rs` | finds references in bytes | pure |
//! | `parent/registrations.rs` | registrations for all store paths of a parent | IO |
//! | `parent/scan.rs` | looks through a layer, once | IO |
//! | `parent/stream.rs` | a layer's uncompressed bytes and their digests | IO |
//! | `parent/tar.rs` | reads tars as Docker does | pure |
//! | `parent/tar/pax.rs` | reads pax headers | pure |
//! | `parent/tar/tests.rs` | tests of the reader | pure |
//! | `parent/texts.rs` | texts of a parent's files, links followed | IO |
//! | `parent/unregistered.rs` | registers store paths from their files | IO |
//! | `plan/diff.rs` | what is different between two plans or images | pure |
//! | `plan/fixed.rs` | layers that were made ahead, in plans | pure |
//! | `plan/groups.rs` | layers and hints that a spec gives by name | pure |
//! | `plan/history.rs` | how packages have changed, as plans carry it on | pure |
//! | `plan/mod.rs` | layer plans and their invariants | pure |
//! | `plan/popularity.rs` | popularity, as nixpkgs scores it | pure |
//! | `plan/saved.rs` | plans as files and in images, for the next plan | pure |
//! | `plan/size.rs` | the largest paths apart, as nixpkgs has it | pure |
//! | `plan/stable.rs` | few bytes sent again: the default strategy | pure |
//! | `plan/stable/cluster.rs` | puts paths together, the cheapest pair first | pure |
//! | `plan/stable/model.rs` | what changes together, as far as one can tell | pure |
//! | `plan/stable/tests.rs` | tests of the strategy | pure |
//! | `plan/tests.rs` | what must hold for every strategy | pure |
//! | `plan/tests/apart.rs` | tests of layers that no strategy has a say in | pure |
//! | `plan/volatile.rs` | what changes so often that it goes into layers of its own | pure |
//! | `queue.rs` | what was built and has not gone out yet, on disk | IO |
//! | `queue/record.rs` | a build that has not gone out yet | IO |
//! | `registry/agent.rs` | what sends requests over HTTP | IO |
//! | `registry/challenge.rs` | what a registry asks for before it answers | pure |
//! | `registry/connection.rs` | talks to one registry | IO |
//! | `registry/connection/authorization.rs` | who asks a registry, and with which token | IO |
//! | `registry/connection/transport.rs` | sends one request, and follows where it leads | IO |
//! | `registry/credentials.rs` | users and passwords, as docker and podman keep them | IO |
//! | `registry/error.rs` | why a registry does not give or take something | pure |
//! | `registry/mod.rs` | registries, each opened once | pure |
//! | `registry/name.rs` | names of images in registries | pure |
//! | `registry/origin.rs` | where URLs lead | pure |
//! | `registry/proxy.rs` | which proxy a server is asked by | pure |
//! | `registry/repository.rs` | manifests and blobs of a repository | IO |
//! | `registry/tests.rs` | tests of the client against a server that does as it is told | IO |
//! | `registry/tests/server.rs` | that server | IO |
//! | `registry/tests/uploads.rs` | tests of uploads and of reading | IO |
//! | `registry/trust.rs` | which registries are trusted | IO |
//! | `registry/upload.rs` | uploads, at once or in chunks | IO |
//! | `s3/address.rs` | where a bucket is, as Nix writes it | pure |
//! | `s3/client.rs` | what can be done with a bucket | IO |
//! | `s3/client/list.rs` | lists what is in a bucket | IO |
//! | `s3/client/request.rs` | asks a bucket, until there is an answer | IO |
//! | `s3/credentials.rs` | who asks a bucket | IO |
//! | `s3/credentials/profiles.rs` | reads profiles of AWS | pure |
//! | `s3/credentials/remote.rs` | credentials that some service gives | IO |
//! | `s3/download.rs` | reads a large object as a stream | IO |
//! | `s3/error.rs` | why a bucket does not give or take something | pure |
//! | `s3/mod.rs` | buckets of S3 | pure |
//! | `s3/redact.rs` | takes signatures out of texts | pure |
//! | `s3/tests.rs` | tests of the client against a server that does as it is told | IO |
//! | `s3/tests/bucket.rs` | a server with a bucket, in memory | IO |
//! | `s3/tests/list.rs` | tests of lists that end, and of others | IO |
//! | `s3/tests/upload.rs` | tests of large objects | IO |
//! | `s3/upload.rs` | writes an object while it is made | IO |
//! | `store/addressed.rs` | registrations from files, where paths are addressed by them | IO |
//! | `store/adopt.rs` | takes files and folders that are not in the store for store paths | IO |
//! | `store/closure.rs` | registrations closed under references | pure |
//! | `store/content_address.rs` | finds content addresses again that a list has lost | IO |
//! | `store/db.rs` | reads a live Nix database | IO |
//! | `store/db/derivations.rs` | what a database knows of derivations | IO |
//! | `store/db/realisations.rs` | what builds of content-addressed derivations have made | IO |
//! | `store/db/row.rs` | what the rows of a Nix database say | pure |
//! | `store/db/tests.rs` | tests of the reader | IO |
//! | `store/derivation.rs` | reads `.drv` files | IO |
//! | `store/dump.rs` | reads registrations as text | pure |
//! | `store/hash.rs` | NAR hashes in every spelling | pure |
//! | `store/info.rs` | a registration | pure |
//! | `store/json.rs` | reads registrations as JSON | pure |
//! | `store/location.rs` | where a store is | pure |
//! | `store/mod.rs` | what a store says of its paths | pure |
//! | `store/restore.rs` | how a store path that is gone comes back | IO |
//! | `store/roots.rs` | indirect GC roots | IO |
//! | `store/source.rs` | where registrations come from | IO |
//! | `tree.rs` | walks and reads store paths | IO |
//! | `tree/elsewhere.rs` | store paths whose files are not in the store | IO |
//! | `tree/error.rs` | why a store path can't be read | pure |
//! | `tree/exclude.rs` | what of a source tree does not go into an image | pure |
//! | `tree/sink.rs` | where the bytes of files come from, and where they are read to | pure |
//! | `url.rs` | paths in URLs | pure |
//! | `worker.rs` | works off the queue of builds | IO |

pub mod build;
pub mod cache;
pub mod cli;
pub mod codec;
pub mod daemon;
pub mod destination;
pub mod digest;
pub mod fs;
pub mod hook;
pub mod image;
pub mod inputs;
pub mod layer;
pub mod local_store;
pub mod mark;
pub mod nar;
pub mod nix_conf;
mod parallel;
pub mod parent;
pub mod plan;
pub mod queue;
pub mod registry;
pub mod s3;
pub mod store;
pub mod tree;
mod url;
pub mod worker;
