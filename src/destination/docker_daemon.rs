//! The Docker daemon: a docker archive that goes through its socket while it is
//! made.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::thread::JoinHandle;

use super::docker_archive::DockerArchive;
use super::{Delivery, Destination, DestinationError};
use crate::daemon::{Daemon, DaemonError};
use crate::image::{Image, ImageName};
use crate::layer::Delivered;

/// An image of a daemon.
pub struct DaemonPlace {
    name: ImageName,
    daemon: Daemon,
    load: Option<Load>,
}

/// An archive that is made, and the thread that loads it.
struct Load {
    archive: DockerArchive,
    loading: JoinHandle<Result<(), DaemonError>>,
}

impl DaemonPlace {
    /// The image `name` of `daemon`; nothing is asked yet.
    #[must_use]
    pub fn new(daemon: Daemon, name: &ImageName) -> Self {
        Self { name: name.clone(), daemon, load: None }
    }

    fn put(&mut self, delivery: &Delivery<'_>) -> anyhow::Result<Vec<Delivered>> {
        let mut load = Load::start(&self.daemon, &self.name)?;
        match load.archive.put_layers(delivery) {
            Ok(delivered) => {
                self.load = Some(load);
                Ok(delivered)
            }
            // Without its last file the daemon loads nothing of it.
            Err(error) => Err(load.end().err().filter(|_| is_broken_pipe(&error)).map_or(error, Into::into)),
        }
    }
}

impl Load {
    fn start(daemon: &Daemon, name: &ImageName) -> Result<Self, DestinationError> {
        let place = format!("docker-daemon:{name}");
        let (mut reader, writer) = std::io::pipe().map_err(DestinationError::write(place.as_ref()))?;
        let archive = DockerArchive::of_file(File::from(OwnedFd::from(writer)), place.as_ref(), name.clone());
        let daemon = daemon.clone();
        Ok(Self { archive, loading: std::thread::spawn(move || daemon.load(&mut reader)) })
    }

    /// Waits for what the daemon says.
    fn end(self) -> Result<(), DaemonError> {
        drop(self.archive);
        self.loading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Whether the daemon has stopped to read, so that it knows why.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| match cause.downcast_ref::<DestinationError>() {
        Some(DestinationError::Write { source, .. }) => source.kind() == std::io::ErrorKind::BrokenPipe,
        _ => false,
    })
}

impl Destination for DaemonPlace {
    fn put_layers(&mut self, delivery: &Delivery<'_>) -> anyhow::Result<Vec<Delivered>> {
        // Whether it has the image is asked once it is known which.
        let expected = delivery.jobs.iter().map(|job| job.expected(delivery.compression)).collect();
        let expected: Option<Vec<Delivered>> = expected;
        expected.map_or_else(|| self.put(delivery), Ok)
    }

    fn finish(&mut self, image: &Image, delivery: &Delivery<'_>) -> anyhow::Result<()> {
        if self.load.is_none() {
            let id = image.config_digest();
            if self.daemon.has(&id)? {
                delivery
                    .jobs
                    .iter()
                    .filter_map(|job| job.known.as_ref())
                    .for_each(|known| (delivery.progress)(known.size));
                return Ok(self.daemon.tag(&id, &self.name)?);
            }
            self.put(delivery)?;
        }
        let Some(mut load) = self.load.take() else { return Ok(()) };
        let finished = load.archive.finish(image, delivery);
        match (load.end(), finished) {
            (Err(error), _) => Err(error.into()),
            (Ok(()), finished) => finished,
        }
    }
}
