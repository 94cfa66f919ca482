/// What a running cluster looks like at one moment, as plain values.
public struct ClusterView: Sendable, Equatable {
    /// One trainer or evaluator.
    public struct Worker: Sendable, Equatable {
        /// Its identity in the run.
        public var name: String
        /// `trainer` or `evaluator`.
        public var role: String
        /// The machine.
        public var host: String
        /// `cpu`, `cuda:0`.
        public var device: String
        /// What it does, in a word or two.
        public var phase: String
        /// Committed steps it has not applied yet.
        public var lagSteps: Int
        /// Slots it holds of the step in flight.
        public var slots: Int
        /// Time since it was last heard.
        public var silentSeconds: Double
        /// Whether it is still there; a lost one stays on the screen for a while.
        public var isConnected: Bool

        /// Names every value.
        public init(
            name: String, role: String, host: String, device: String, phase: String,
            lagSteps: Int = 0, slots: Int = 0, silentSeconds: Double = 0, isConnected: Bool = true
        ) {
            self.name = name
            self.role = role
            self.host = host
            self.device = device
            self.phase = phase
            self.lagSteps = lagSteps
            self.slots = slots
            self.silentSeconds = silentSeconds
            self.isConnected = isConnected
        }
    }

    /// One checkpoint on one set.
    public struct Score: Sendable, Equatable {
        /// One metric's value.
        public struct Value: Sendable, Equatable {
            /// The metric's name, as in the ledger.
            public let metric: String
            /// Its value.
            public let value: Double
        }

        /// The checkpoint's step.
        public var step: Int
        /// `val_eval` and so on.
        public var set: String
        /// What is shown.
        public var values: [Value]

        /// A set of tuples.
        public init(step: Int, set: String, general: Double, easy: Double) {
            self.step = step
            self.set = set
            values = [
                Value(metric: "general_accuracy", value: general),
                Value(metric: "easy_accuracy", value: easy),
            ]
        }

        /// A set of images.
        public init(step: Int, set: String, loss: Double, top1: Double) {
            self.step = step
            self.set = set
            values = [Value(metric: "mean_loss", value: loss), Value(metric: "top1", value: top1)]
        }

        /// Whether a set is of images, each of which has a loss, and not of tuples.
        static func isOfImages(_ set: String) -> Bool { imageSets.contains(set) }

        /// The sets, in the order in which they are shown; others follow by name.
        static func ordered(_ sets: Set<String>) -> [String] {
            let known = ["train_eval", "val_eval", "easy_val_eval"] + imageSets
            return known.filter(sets.contains) + sets.subtracting(known).sorted()
        }

        private static let imageSets = ["train_images", "val_images"]

        /// `0.812 / 0.934`.
        var text: String { values.map { Spoken.fixed($0.value, 3) }.joined(separator: " / ") }

        /// What the numbers of sets are: `general / easy accuracy`.
        static func legend(of sets: [String]) -> String {
            let tuples = sets.allSatisfy(isOfImages) ? [] : ["general / easy accuracy"]
            let images = sets.contains(where: isOfImages) ? ["of images loss / top-1"] : []
            return (tuples + images).joined(separator: ", ")
        }
    }

    /// The run's name.
    public var run: String
    /// What the coordinator does: `training`, `draining`.
    public var state: String
    /// Committed steps.
    public var step: Int
    /// Steps in the whole run.
    public var totalSteps: Int
    /// Mean loss over the last step's slots; nil before the first.
    public var loss: Double?
    /// Share of triplets that still violate their margin; nil before the first step.
    public var fractionPositive: Double?
    /// The last step's learning rate.
    public var learningRate: Double?
    /// Training images a second, over the last steps; nil before the first.
    public var samplesPerSecond: Double?
    /// Time to the last step at that rate; nil when unknown.
    public var secondsLeft: Double?
    /// Trainers and evaluators.
    public var workers: [Worker]
    /// The newest scores; older ones may be left out.
    public var scores: [Score]
    /// What somebody should look at.
    public var warnings: [String]
    /// The last events, oldest first.
    public var events: [String]
    /// Whether nothing more will follow.
    public var isFinal: Bool

    /// Names every value; all but the first four have an empty default.
    public init(
        run: String, state: String, step: Int, totalSteps: Int, loss: Double? = nil,
        fractionPositive: Double? = nil, learningRate: Double? = nil,
        samplesPerSecond: Double? = nil, secondsLeft: Double? = nil, workers: [Worker] = [],
        scores: [Score] = [], warnings: [String] = [], events: [String] = [], isFinal: Bool = false
    ) {
        self.run = run
        self.state = state
        self.step = step
        self.totalSteps = totalSteps
        self.loss = loss
        self.fractionPositive = fractionPositive
        self.learningRate = learningRate
        self.samplesPerSecond = samplesPerSecond
        self.secondsLeft = secondsLeft
        self.workers = workers
        self.scores = scores
        self.warnings = warnings
        self.events = events
        self.isFinal = isFinal
    }
}
