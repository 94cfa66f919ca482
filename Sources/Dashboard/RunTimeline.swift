import Foundation

/// Where a run's time went: what faults and evaluation took from training.
public struct RunTimeline: Sendable {
    /// A committed step.
    public struct Commit: Sendable, Equatable {
        /// The step.
        public var step: Int
        /// When, in seconds since 1970.
        public var time: Double
        /// The coordinator's term.
        public var term: Int

        /// Names every value.
        public init(step: Int, time: Double, term: Int) {
            self.step = step
            self.time = time
            self.term = term
        }
    }

    /// Something that held training up.
    public struct Fault: Sendable, Equatable {
        /// What happened.
        public var text: String
        /// The last step that was committed before it.
        public var step: Int
        /// How much longer than usual the next step took to be committed.
        public var seconds: Double

        /// Names every value.
        public init(text: String, step: Int, seconds: Double) {
            self.text = text
            self.step = step
            self.seconds = seconds
        }
    }

    /// Time between two commits that follow one another.
    private struct Gap {
        let step: Int
        let start: Double
        let end: Double
        let changesTerm: Bool
        var losses: [String] = []
        var isBusy = false
        var seconds: Double { end - start }
        var isDisturbed: Bool { changesTerm || !losses.isEmpty }
    }

    private var gaps: [Gap]
    /// Places in `gaps` at which the number of trainers may have changed.
    private var breaks: Set<Int> = []

    /// Lays events and evaluations along the commits.
    ///
    /// - Parameters:
    ///   - commits: ascending by step.
    ///   - losses: when a trainer was found lost, and what is said of it.
    ///   - changes: when a trainer joined or left in any way.
    ///   - evaluations: when sets were being scored, from first image to last.
    public init(
        commits: [Commit], losses: [(time: Double, text: String)], changes: [Double],
        evaluations: [(start: Double, end: Double)]
    ) {
        gaps = zip(commits, commits.dropFirst()).map { before, after in
            Gap(
                step: before.step, start: before.time, end: after.time,
                changesTerm: before.term != after.term)
        }
        for loss in losses {
            if let place = gap(at: loss.time) { gaps[place].losses.append(loss.text) }
        }
        for change in changes {
            if let place = gap(at: change) { breaks.insert(place) }
        }
        for place in gaps.indices {
            gaps[place].isBusy = evaluations.contains {
                $0.start < gaps[place].end && $0.end > gaps[place].start
            }
            if gaps[place].isDisturbed { breaks.insert(place) }
        }
    }

    /// What held training up, in order, each with the time it took.
    ///
    /// A lost trainer costs what its step took longer than the ten undisturbed ones before it; that
    /// the rest then share its work is not counted. A stop costs from the last commit before to the
    /// first one after, and so includes the time in which nobody resumed.
    public var faults: [Fault] {
        gaps.indices.filter { gaps[$0].isDisturbed }.flatMap { place in
            let gap = gaps[place]
            let lost = max(0, gap.seconds - usual(before: place))
            if gap.changesTerm {
                return [Fault(text: "stopped and resumed", step: gap.step, seconds: lost)]
            }
            // Losses within one step share what it took longer.
            return gap.losses.map { text in
                Fault(text: text, step: gap.step, seconds: lost / Double(gap.losses.count))
            }
        }
    }

    /// The share of training time that evaluation took, or nil where there is nothing to compare.
    ///
    /// Steps during which a set was being scored are compared with the median of the others, among
    /// steps with the same trainers; disturbed steps are left out.
    public var evaluationCost: Double? {
        var extra = 0.0
        var total = 0.0
        var hasCompared = false
        for segment in segments() {
            let free = segment.filter { !$0.isBusy }.map(\.seconds)
            let busy = segment.filter(\.isBusy).map(\.seconds)
            total += (free + busy).reduce(0, +)
            guard free.count >= 3, !busy.isEmpty else { continue }
            hasCompared = true
            extra += busy.reduce(0) { $0 + $1 - Self.median(free) }
        }
        return hasCompared && total > 0 ? max(0, extra) / total : nil
    }

    private func segments() -> [[Gap]] {
        var segments: [[Gap]] = [[]]
        for place in gaps.indices {
            if breaks.contains(place) {
                segments.append([])
            } else {
                segments[segments.count - 1].append(gaps[place])
            }
        }
        return segments.filter { !$0.isEmpty }
    }

    private func gap(at time: Double) -> Int? {
        gaps.firstIndex { $0.start <= time && time < $0.end }
    }

    private func usual(before place: Int) -> Double {
        let before = gaps[..<place].reversed().prefix(10).filter { !$0.isDisturbed }
        if !before.isEmpty { return Self.median(before.map(\.seconds)) }
        let all = gaps.filter { !$0.isDisturbed }
        return all.isEmpty ? 0 : Self.median(all.map(\.seconds))
    }

    private static func median(_ values: [Double]) -> Double {
        let sorted = values.sorted()
        let middle = sorted.count / 2
        return sorted.count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
    }
}
