/// What there is to say of a run when it is over: scores, faults, costs, ranked pictures.
public struct RunReport: Sendable {
    /// One tuple with its candidates as the network ranks them.
    public struct Ranking: Sendable {
        /// A picture in a ranking.
        public struct Picture: Sendable {
            /// Path below the data set's folder.
            public var path: String
            /// Distance from the anchor; 0 for the anchor itself.
            public var distance: Double
            /// Whether it shows the anchor's object.
            public var isPositive: Bool
            /// The file's bytes, a JPEG; empty when it could not be read.
            public var jpeg: [UInt8]

            /// Names every value.
            public init(path: String, distance: Double, isPositive: Bool, jpeg: [UInt8]) {
                self.path = path
                self.distance = distance
                self.isPositive = isPositive
                self.jpeg = jpeg
            }
        }

        /// What is asked about.
        public var anchor: Picture
        /// From near to far.
        public var candidates: [Picture]
        /// Whether the nearest candidate is the positive.
        public var isRight: Bool { candidates.first?.isPositive ?? false }

        /// Names every value.
        public init(anchor: Picture, candidates: [Picture]) {
            self.anchor = anchor
            self.candidates = candidates
        }
    }

    /// The run's name.
    public var run: String
    /// Its folder.
    public var folder: String
    /// Committed steps.
    public var lastStep: Int
    /// Digest of the newest checkpoint's weights, as hexadecimal digits.
    public var weights: String
    /// Every score, by step.
    public var scores: [ClusterView.Score]
    /// General and easy accuracy of nearest neighbours on raw pixels, by set; step is 0.
    public var pixels: [ClusterView.Score]
    /// What held training up.
    public var faults: [RunTimeline.Fault]
    /// Share of training time that evaluation took; nil when unknown.
    public var evaluationCost: Double?
    /// Some tuples of one set.
    public var rankings: [Ranking]
    /// The set they are from.
    public var rankedSet: String

    /// Names every value.
    public init(
        run: String, folder: String, lastStep: Int, weights: String, scores: [ClusterView.Score],
        pixels: [ClusterView.Score] = [], faults: [RunTimeline.Fault] = [],
        evaluationCost: Double? = nil, rankings: [Ranking] = [], rankedSet: String = ""
    ) {
        self.run = run
        self.folder = folder
        self.lastStep = lastStep
        self.weights = weights
        self.scores = scores
        self.pixels = pixels
        self.faults = faults
        self.evaluationCost = evaluationCost
        self.rankings = rankings
        self.rankedSet = rankedSet
    }

    /// Sets that have scores, the standard ones first.
    public var sets: [String] {
        ClusterView.Score.ordered(Set((scores + pixels).map(\.set)))
    }

    /// What the numbers in ``rows`` are.
    var legend: String { ClusterView.Score.legend(of: sets) }

    /// Where the loss on images that are held out was least: from there on it flattens or rises.
    var turn: String? {
        let losses = scores.filter { $0.set == "val_images" }.compactMap { score in
            score.values.first { $0.metric == "mean_loss" && $0.value.isFinite }
                .map { (step: score.step, value: $0.value) }
        }
        return losses.min { ($0.value, $0.step) < ($1.value, $1.step) }.map {
            "val_images: the least loss is \(Spoken.fixed($0.value, 4)) at step \($0.step)"
        }
    }

    /// One row a checkpoint: step, then the numbers of each set.
    var rows: [(label: String, cells: [String])] {
        func cells(_ scores: [ClusterView.Score]) -> [String] {
            sets.map { set in
                scores.last { $0.set == set }?.text ?? "-"
            }
        }
        var rows: [(label: String, cells: [String])] = []
        if !pixels.isEmpty { rows.append(("raw pixels", cells(pixels))) }
        for step in Set(scores.map(\.step)).sorted() {
            rows.append(("step \(step)", cells(scores.filter { $0.step == step })))
        }
        return rows
    }

    /// The report for a terminal or a pipe.
    public var lines: [String] {
        var lines = ["run \(run), \(lastStep) steps"]
        let rows = rows
        if !rows.isEmpty {
            let first = (rows.map(\.label.count).max() ?? 0) + 2
            func padded(_ text: String, _ width: Int) -> String {
                text + String(repeating: " ", count: max(0, width - text.count))
            }
            lines.append("")
            lines.append(legend)
            lines.append(
                padded("", first) + sets.map { padded($0, 15) }.joined(separator: "  "))
            for row in rows {
                lines.append(
                    padded(row.label, first)
                        + row.cells.map { padded($0, 15) }.joined(separator: "  "))
            }
            if let turn { lines.append(turn) }
        }
        lines.append("")
        for fault in faults {
            lines.append(
                "\(fault.text) after step \(fault.step): \(Spoken.fixed(fault.seconds, 1)) s lost")
        }
        lines.append(
            "evaluation took "
                + (evaluationCost.map { Spoken.fixed($0 * 100, 1) + " % of training time" }
                    ?? "no training time that could be measured"))
        return lines.map { StyledLine($0).rendered(columns: .max, colour: false) }.map { line in
            var line = line
            while line.hasSuffix(" ") { line.removeLast() }
            return line
        }
    }
}
