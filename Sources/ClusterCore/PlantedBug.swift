#if PLANTED_BUGS
    internal import Glibc

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
        case auditedSumSent
        case gradientsOfWrongKept
        case newestDeleted
        case unscoredDeleted
        // In a trainer's.
        case applyOnReady
        case stagedEffectDropped
        case staleCommit
        case copiesKeptForever
        case partialLostAtOwnerChange
        case embeddingsOfWrongKept
        // In what surrounds them.
        case foldInArrivalOrder
        case statisticsNotReplayed
        case checkpointRowBeforeRename
        case coordinatorsShareTerm
    }

    /// The mistake that this thread's simulation makes, or this process.
    public enum Planted {
        /// Set around a run of the simulator; elsewhere the one that `LINEUP_PLANTED` names.
        @TaskLocal public static var bug: PlantedBug? = ofProcess

        private static var ofProcess: PlantedBug? {
            guard let name = unsafe getenv("LINEUP_PLANTED") else { return nil }
            let bug = PlantedBug(rawValue: unsafe String(cString: name))
            precondition(bug != nil, "LINEUP_PLANTED names no mistake of PlantedBug.swift")
            return bug
        }

        /// Whether it is this one.
        public static func has(_ bug: PlantedBug) -> Bool { self.bug == bug }
    }
#endif
