//! Which world the engine is in: alone, or a rank of an MPI job.

use std::rc::Rc;
use std::time::Duration;

#[cfg(feature = "mpi")]
use crate::mpi::World;

use super::failure::Failure;
#[cfg(feature = "mpi")]
use crate::cli::MpiCalls;
use crate::cli::Settings;
use crate::communicator::{CommError, Communicator};
use crate::control_plane::{broadcast_bytes, gather_bytes};
use crate::interrupt::Interrupt;
use crate::solo::Solo;
use crate::wait_status::WaitStatus;

/// The world of this process.
#[derive(Debug)]
pub enum Place {
    /// A world of one rank, without MPI.
    Alone(Rc<Solo>),
    /// A rank of an MPI job.
    #[cfg(feature = "mpi")]
    Rank(Rc<World>),
}

impl Place {
    /// A world of one rank.
    pub fn alone() -> Place {
        Place::Alone(Rc::new(Solo::new()))
    }

    /// # Collective
    /// The world that the command line asks for. To be called first of all, on the main thread.
    pub fn take(settings: &Settings, interrupt: &Interrupt) -> Result<Place, Failure> {
        if settings.mpi { Place::rank_of_a_job(settings, interrupt) } else { Ok(Place::alone()) }
    }

    #[cfg(feature = "mpi")]
    fn rank_of_a_job(settings: &Settings, interrupt: &Interrupt) -> Result<Place, Failure> {
        let world = World::init(settings.expect_size, interrupt.clone()).map_err(Failure::world)?;
        let world = Rc::new(world);
        let interruptible = settings.mpi_calls == MpiCalls::Interruptible;
        world.take_over_user_calls(interruptible).map_err(Failure::world)?;
        Ok(Place::Rank(world))
    }

    #[cfg(not(feature = "mpi"))]
    fn rank_of_a_job(_settings: &Settings, _interrupt: &Interrupt) -> Result<Place, Failure> {
        Err(Failure::usage(
            "join an MPI world: this engine was built without MPI; build it with the feature `mpi` (the default), \
             or start it without --mpi"
                .to_owned(),
        ))
    }

    /// The calls to the other ranks.
    pub fn communicator(&self) -> Rc<dyn Communicator> {
        match self {
            Place::Alone(solo) => Rc::clone(solo) as Rc<dyn Communicator>,
            #[cfg(feature = "mpi")]
            Place::Rank(world) => Rc::clone(world) as Rc<dyn Communicator>,
        }
    }

    /// The rank of this process.
    pub fn rank(&self) -> usize {
        self.communicator().rank()
    }

    /// How many ranks there are.
    pub fn size(&self) -> usize {
        self.communicator().size()
    }

    /// Whether ids are ranks.
    pub fn has_ranks(&self) -> bool {
        !matches!(self, Place::Alone(_))
    }

    /// Where this rank waits, readable from another thread.
    pub fn wait_status(&self) -> WaitStatus {
        match self {
            Place::Alone(_) => WaitStatus::default(),
            #[cfg(feature = "mpi")]
            Place::Rank(world) => world.wait_status(),
        }
    }

    /// Drives what interrupts have left behind; says whether something is left.
    pub fn driver(&self) -> Box<dyn FnMut() -> bool> {
        match self {
            Place::Alone(_) => Box::new(|| false),
            #[cfg(feature = "mpi")]
            Place::Rank(world) => {
                let world = Rc::clone(world);
                Box::new(move || world.progress())
            }
        }
    }

    /// # Collective
    /// Every rank's bytes, on rank 0 only.
    pub fn gather(&self, bytes: &[u8]) -> Result<Option<Vec<Vec<u8>>>, CommError> {
        gather_bytes(&*self.communicator(), bytes, 0)
    }

    /// # Collective
    /// The bytes of rank 0, on every rank.
    pub fn broadcast(&self, bytes: Option<&[u8]>) -> Result<Vec<u8>, CommError> {
        broadcast_bytes(&*self.communicator(), bytes, 0)
    }

    /// # Collective
    /// Leaves the world together with the other ranks. Nobody else may hold its communicator any more.
    pub fn finalize(self, patience: Duration) -> Result<(), String> {
        match self {
            Place::Alone(_) => {
                let _ = patience; // Nobody is waited for.
                Ok(())
            }
            #[cfg(feature = "mpi")]
            Place::Rank(world) => {
                let world = Rc::try_unwrap(world).map_err(|_| "a task still holds the world".to_owned())?;
                world.finalize(patience).map_err(|error| error.to_string())
            }
        }
    }
}

/// What the MPI library calls itself.
pub fn mpi_library() -> String {
    #[cfg(feature = "mpi")]
    return crate::mpi::library_version().trim().to_owned();
    #[cfg(not(feature = "mpi"))]
    return "without MPI".to_owned();
}
