import Dashboard
import Testing

@Suite struct PlainReporterTests {
    private func view(
        _ step: Int, scores: [ClusterView.Score] = [], events: [String] = [],
        warnings: [String] = []
    ) -> ClusterView {
        ClusterView(
            run: "r", state: "training", step: step, totalSteps: 9, scores: scores,
            warnings: warnings, events: events)
    }

    @Test func progressIsSaidWhenItMoves() {
        var reporter = PlainReporter()
        #expect(reporter.lines(for: view(1)).count == 1)
        #expect(reporter.lines(for: view(1)).isEmpty)
        #expect(reporter.lines(for: view(2)).count == 1)
        var drained = view(2)
        drained.state = "draining"
        #expect(reporter.lines(for: drained).first?.hasPrefix("draining: step 2/9") == true)
    }

    @Test func scoresAndWarningsAreSaidOnce() {
        var reporter = PlainReporter()
        let score = ClusterView.Score(step: 0, set: "val_eval", general: 0.5, easy: 0.75)
        let first = reporter.lines(for: view(1, scores: [score], warnings: ["w"]))
        #expect(
            first.prefix(2) == [
                "warning: w",
                "score: step 0  val_eval  general_accuracy 0.5000  easy_accuracy 0.7500",
            ])
        #expect(reporter.lines(for: view(1, scores: [score], warnings: ["w"])).isEmpty)
        #expect(reporter.lines(for: view(1)).isEmpty)
        #expect(reporter.lines(for: view(1, warnings: ["w"])) == ["warning: w"])
    }

    @Test func eventsThatMoveThroughAShortListAreSaidOnce() {
        var reporter = PlainReporter()
        var said: [String] = []
        let all = (0..<20).map { "e\($0 / 2)" }
        for end in [0, 1, 3, 3, 8, 9, 20] {
            let window = Array(all.prefix(end).suffix(8))
            said += reporter.lines(for: view(1, events: window)).filter { $0.hasPrefix("event: ") }
        }
        // The last window starts behind the one before it, so three events were never shown.
        #expect(said == (all.prefix(9) + all.suffix(8)).map { "event: " + $0 })
    }
}
