internal import Protocol

/// What training does by the scores of its checkpoints: a lower rate on a plateau, an early end.
///
/// The score of checkpoint s is looked at from step s + ``lagSteps`` on, and that step is not begun before
/// the score is in the ledger, so that what is decided does not depend on how fast evaluators are.
/// Judged as Keras's `ReduceLROnPlateau` and `EarlyStopping` do, the first checkpoint included: it is a bad one
/// that is not better than the best by more than ``minDelta``.
public struct DecisionRule: Codable, Sendable, Equatable {
    /// The score that counts.
    public var ranking: CheckpointRetention.Ranking
    /// Checkpoints are this far apart; the first is step 0.
    public var checkpointEverySteps: Int
    /// Steps between a checkpoint and the first step that its score decides on.
    public var lagSteps: Int
    /// Bad checkpoints in a row after which the rate falls; 0 never.
    public var plateauPatience: Int
    /// Bad checkpoints in a row after which training ends; 0 never.
    public var stopPatience: Int
    /// What is no improvement.
    public var minDelta: Double

    /// Names every part.
    public init(
        ranking: CheckpointRetention.Ranking, checkpointEverySteps: Int, lagSteps: Int,
        plateauPatience: Int, stopPatience: Int, minDelta: Double
    ) {
        precondition(checkpointEverySteps > 0 && lagSteps > 0, "no decision looks at the present")
        self.ranking = ranking
        self.checkpointEverySteps = checkpointEverySteps
        self.lagSteps = lagSteps
        self.plateauPatience = plateauPatience
        self.stopPatience = stopPatience
        self.minDelta = minDelta
    }

    /// What the scores up to some checkpoint have led to.
    public struct Verdict: Sendable, Equatable {
        /// How often the rate has fallen.
        public var reductions = 0
        /// Last step of the run; nil while it goes on.
        public var lastStep: Int?
        /// The best score so far.
        public var best: Score?

        /// A checkpoint's score.
        public struct Score: Sendable, Equatable {
            /// Step of the checkpoint.
            public let step: Int
            /// The metric's value.
            public let value: Double
        }
    }

    /// The newest checkpoint whose score decides on a step, nil where there is none yet.
    func newest(for step: Int) -> Int? {
        let last = step - lagSteps
        return last < 0 ? nil : last / checkpointEverySteps * checkpointEverySteps
    }

    /// The first checkpoint that a step waits for.
    ///
    /// - Parameter scores: by step of the checkpoint.
    func awaited(for step: Int, scores: [Int: Double]) -> Int? {
        guard let newest = newest(for: step) else { return nil }
        return stride(from: 0, through: newest, by: checkpointEverySteps).first {
            scores[$0] == nil
        }
    }

    /// What is decided on a step by the scores before it.
    func verdict(for step: Int, scores: [Int: Double]) -> Verdict {
        var verdict = Verdict()
        guard let newest = newest(for: step) else { return verdict }
        var (bad, badSinceReduction) = (0, 0)
        for checkpoint in stride(from: 0, through: newest, by: checkpointEverySteps) {
            guard let score = scores[checkpoint] else { break }
            let value = ranking.isLargerBetter ? score : -score
            let best = verdict.best.map { ranking.isLargerBetter ? $0.value : -$0.value }
            // What is no number is no improvement either.
            if value > (best.map { $0 + minDelta } ?? -.infinity) {
                verdict.best = .init(step: checkpoint, value: score)
                (bad, badSinceReduction) = (0, 0)
                continue
            }
            bad += 1
            badSinceReduction += 1
            if plateauPatience > 0, badSinceReduction >= plateauPatience {
                verdict.reductions += 1
                badSinceReduction = 0
            }
            if stopPatience > 0, bad >= stopPatience {
                verdict.lastStep = checkpoint + lagSteps
                break
            }
        }
        return verdict
    }
}

extension CoordinatorStateMachine {
    /// The last step of the run, as far as is known.
    var lastStep: Int { earlyStop ?? configuration.totalSteps }

    /// The checkpoint whose score the next step waits for.
    var awaitedScore: Int? {
        guard let rule = configuration.decisions, cursor < lastStep else { return nil }
        return rule.awaited(for: cursor + 1, scores: decisionScores)
    }

    /// Decides on the next step, and says what has changed.
    mutating func decide() -> [CoordinatorAction] {
        guard let rule = configuration.decisions, awaitedScore == nil else { return [] }
        let verdict = rule.verdict(for: cursor + 1, scores: decisionScores)
        var actions: [CoordinatorAction] = []
        if verdict.reductions != reductions {
            reductions = verdict.reductions
            // A step that is done again has been told of.
            if cursor >= tip.step {
                actions.append(
                    .event(
                        kind: "plateau", severity: .info,
                        text: "\(Self.told(verdict, rule)): the learning rate falls for the "
                            + "\(reductions == 1 ? "first" : "next") time from step \(cursor + 1) on"
                    ))
            }
        }
        if let last = verdict.lastStep, last < lastStep {
            earlyStop = last
            guard last > cursor else { return actions }
            actions.append(
                .event(
                    kind: "early_stop", severity: .info,
                    text: "\(Self.told(verdict, rule)): training ends with step \(last)"))
        }
        return actions
    }

    private static func told(_ verdict: DecisionRule.Verdict, _ rule: DecisionRule) -> String {
        let score = "\(rule.ranking.metric) of \(rule.ranking.set)"
        guard let best = verdict.best else { return "\(score) is no number" }
        return "\(score) has not been better than \(best.value) of step \(best.step)"
    }

    mutating func noteDecisionScore(_ rows: WireEvaluationRows) {
        let step = Int(clamping: rows.step)
        guard let ranking = configuration.decisions?.ranking, rows.set == ranking.set,
            decisionScores[step] == nil
        else { return }
        decisionScores[step] = rows.metrics.first { $0.metric == ranking.metric }?.value ?? .nan
    }
}
