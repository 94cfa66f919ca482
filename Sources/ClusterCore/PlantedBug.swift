#if PLANTED_BUGS
    /// Mistakes that a protocol like ours invites, each compiled into tests only.
    ///
    /// The simulator has to find every one of them by a broken promise; see `PlantedBugTests`.
    public enum PlantedBug: String, CaseIterable, Sendable {
        // In the coordinator's decisions.
        case commitBeforeLedger
        case generationNotCompared
        case slotCountedTwice
        case leaseWithoutAttempt
        case joinerEntersInMidStep
        case redoWritesRows
        case evaluationRowUnchecked
        case drainDropsLease
        case quarantinedResultKept
        case quarantineForgotten
        case loadNumberReused
        case readyKeptAcrossGenerations
        case olderCoordinatorRefuses
        case dueCheckpointForgotten
        case commitWithoutEveryMember
        case checkpointLagIgnored
        case strangerHeard
        case numericsNotCompared
        case auditNotAwaited
        case auditorNotHeard
        case newestDeleted
        case unscoredDeleted
        // In a trainer's.
        case applyOnReady
        case stagedEffectDropped
        case staleCommit
        case copiesKeptForever
        case partialLostAtOwnerChange
        // In what surrounds them.
        case foldInArrivalOrder
        case statisticsNotReplayed
        case checkpointRowBeforeRename
        case coordinatorsShareTerm
    }

    /// The mistake that this thread's simulation makes.
    public enum Planted {
        /// Set around a run of the simulator.
        @TaskLocal public static var bug: PlantedBug?

        /// Whether it is this one.
        public static func has(_ bug: PlantedBug) -> Bool { self.bug == bug }
    }
#endif
