/// Which checkpoints stay on disk: the newest, every n-th step, the best by a metric, and those that
/// wait to be scored.
///
/// A pure function of what is known of each. A checkpoint that is not among the best of those scored
/// so far is not among the best of more either, so that what stays in the end does not depend on the
/// order in which scores came.
public struct CheckpointRetention: Codable, Equatable, Sendable {
    /// What checkpoints are ranked by.
    public struct Ranking: Codable, Equatable, Sendable {
        /// Name of the set.
        public var set: String
        /// Name of the metric.
        public var metric: String
        /// Whether larger values are better.
        public var isLargerBetter: Bool

        /// Names a metric of a set.
        public init(set: String, metric: String, isLargerBetter: Bool) {
            self.set = set
            self.metric = metric
            self.isLargerBetter = isLargerBetter
        }
    }

    /// What is known of a checkpoint.
    public struct Candidate: Equatable, Sendable {
        /// Its step.
        public var step: Int
        /// Whether no set waits to be scored.
        public var isScored: Bool
        /// Whether somebody reads it now.
        public var isInUse: Bool
        /// Value that it is ranked by; nil before it is scored.
        public var value: Double?

        /// Names what is known.
        public init(step: Int, isScored: Bool, isInUse: Bool = false, value: Double? = nil) {
            self.step = step
            self.isScored = isScored
            self.isInUse = isInUse
            self.value = value
        }
    }

    /// How many of the newest stay; at least 1.
    public var last: Int
    /// Steps divisible by this stay; 0: none for that.
    public var everySteps: Int
    /// How many of the best stay.
    public var best: Int
    /// Which are the best.
    public var ranking: Ranking
    /// How many stay only because a set is not scored.
    public var unscored: Int

    /// Names the rules; what one of them keeps, stays.
    public init(last: Int, everySteps: Int, best: Int, ranking: Ranking, unscored: Int) {
        precondition(last >= 1, "the newest checkpoint is never deleted, but last is \(last)")
        self.last = last
        self.everySteps = everySteps
        self.best = best
        self.ranking = ranking
        self.unscored = unscored
    }

    /// What no rule keeps.
    ///
    /// - Parameter candidates: the checkpoints that verify, oldest first.
    /// - Returns: steps, oldest first.
    public func superfluous(_ candidates: [Candidate]) -> [Int] {
        let best = bestSteps(candidates)
        var unscoredLeft = unscored
        var superfluous: [Int] = []
        for (age, candidate) in candidates.reversed().enumerated() {
            let isKept =
                age < last || candidate.isInUse || best.contains(candidate.step)
                || (everySteps > 0 && candidate.step.isMultiple(of: everySteps))
            if isKept { continue }
            if !candidate.isScored, unscoredLeft > 0 {
                unscoredLeft -= 1
                continue
            }
            superfluous.append(candidate.step)
        }
        return superfluous.reversed()
    }

    /// Of equal values the newer is better; what is no number is not among the best.
    private func bestSteps(_ candidates: [Candidate]) -> Set<Int> {
        let ranked = candidates.compactMap { candidate -> (step: Int, value: Double)? in
            guard let value = candidate.value, !value.isNaN else { return nil }
            return (candidate.step, ranking.isLargerBetter ? value : -value)
        }
        return Set(
            ranked.sorted { ($0.value, $0.step) > ($1.value, $1.step) }.prefix(best).map(\.step))
    }
}

extension CoordinatorStateMachine {
    /// Deletes what no rule keeps, once something has changed that the rules look at.
    mutating func retain() -> [CoordinatorAction] {
        guard isRetentionDue, let retention = configuration.retention else { return [] }
        isRetentionDue = false
        let candidates = durable.filter { !$0.isRecovery }.map {
            CheckpointRetention.Candidate(
                step: $0.step, isScored: !queue.isOpen(step: $0.step),
                isInUse: queue.isLeased(step: $0.step) || $0.step == cursor,
                value: rankingValues[$0.step])
        }
        var superfluous = retention.superfluous(candidates)
        #if PLANTED_BUGS
            let areMany = candidates.count > 4
            if Planted.has(.newestDeleted), areMany {
                superfluous = candidates.map(\.step).suffix(1)
            }
            if Planted.has(.unscoredDeleted), areMany {
                superfluous = candidates.dropLast().filter { !$0.isScored }.map(\.step)
            }
        #endif
        return superfluous.flatMap { delete(step: $0) }
    }

    private mutating func delete(step: Int) -> [CoordinatorAction] {
        guard let place = durable.firstIndex(where: { $0.step == step && !$0.isRecovery })
        else { return [] }
        let checkpoint = durable.remove(at: place)
        deletedDigests[step] = checkpoint.digest
        let unscored = queue.checkpointDeleted(step: step)
        let wasNot =
            unscored.isEmpty ? "" : " before it was scored on \(unscored.joined(separator: ", "))"
        return [
            .deleteCheckpoint(checkpoint),
            .event(
                kind: "checkpoint_deleted", severity: unscored.isEmpty ? .info : .warning,
                text: "checkpoint of step \(step) is deleted\(wasNot)"),
        ]
    }
}
