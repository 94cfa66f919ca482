import Dashboard
import Testing

@Suite struct RunTimelineTests {
    /// Commits a second apart, but for the gaps that are named.
    private func commits(_ gaps: [Double], terms: [Int]? = nil) -> [RunTimeline.Commit] {
        var time = 100.0
        var commits = [RunTimeline.Commit(step: 1, time: time, term: terms?[0] ?? 1)]
        for (index, gap) in gaps.enumerated() {
            time += gap
            commits.append(.init(step: index + 2, time: time, term: terms?[index + 1] ?? 1))
        }
        return commits
    }

    @Test func aLostTrainerCostsWhatItsStepTookLonger() {
        let timeline = RunTimeline(
            commits: commits([1, 1, 1, 3.5, 2, 2]), losses: [(104.0, "trainer t1 left")],
            changes: [104], evaluations: [])
        #expect(timeline.faults == [.init(text: "trainer t1 left", step: 4, seconds: 2.5)])
    }

    @Test func aStopCostsFromTheLastCommitToTheNext() {
        let timeline = RunTimeline(
            commits: commits([1, 1, 9, 1], terms: [1, 1, 1, 2, 2]), losses: [], changes: [],
            evaluations: [])
        #expect(timeline.faults == [.init(text: "stopped and resumed", step: 3, seconds: 8)])
    }

    @Test func twoLossesInOneStepShareIt() {
        let timeline = RunTimeline(
            commits: commits([1, 5, 1]), losses: [(102, "a"), (103, "b"), (50, "before the run")],
            changes: [], evaluations: [])
        #expect(timeline.faults.map(\.seconds) == [2, 2])
    }

    @Test func aStepThatTookNoLongerCostsNothing() {
        let timeline = RunTimeline(
            commits: commits([1, 0.5, 1]), losses: [(101.2, "a")], changes: [], evaluations: [])
        #expect(timeline.faults.map(\.seconds) == [0])
    }

    @Test func evaluationCostsWhatStepsUnderItTookLonger() throws {
        // Ten steps: 1 s each, and 1.5 s for the two during which a set was scored.
        let timeline = RunTimeline(
            commits: commits([1, 1, 1, 1, 1.5, 1.5, 1, 1, 1, 1]), losses: [], changes: [],
            evaluations: [(104.1, 106.9)])
        let cost = try #require(timeline.evaluationCost)
        #expect(abs(cost - 1.0 / 11) < 1e-12)
    }

    @Test func stepsWithOtherTrainersAreNotCompared() throws {
        // After the change every step takes 2 s, with evaluation or without.
        let timeline = RunTimeline(
            commits: commits([1, 1, 1, 1, 3, 2, 2, 2, 2, 2]), losses: [], changes: [105],
            evaluations: [(109.5, 112)])
        #expect(try #require(timeline.evaluationCost) == 0)
    }

    @Test func nothingToCompareIsUnknown() {
        let none = RunTimeline(commits: [], losses: [], changes: [], evaluations: [])
        #expect(none.evaluationCost == nil && none.faults.isEmpty)
        let always = RunTimeline(
            commits: commits([1, 1, 1, 1]), losses: [], changes: [], evaluations: [(0, 1000)])
        #expect(always.evaluationCost == nil)
    }
}

@Suite struct RunReportTests {
    private let report = RunReport(
        run: "a<b", folder: "/r", lastStep: 60, weights: "3f2a",
        scores: [
            .init(step: 0, set: "val_eval", general: 0.5, easy: 0.7),
            .init(step: 60, set: "val_eval", general: 0.9, easy: 0.95),
            .init(step: 60, set: "train_eval", general: 1, easy: 1),
        ],
        pixels: [.init(step: 0, set: "val_eval", general: 0.58, easy: 0.75)],
        faults: [.init(text: "trainer t left", step: 20, seconds: 1.25)], evaluationCost: 0.031,
        rankings: [
            .init(
                anchor: .init(path: "x/\"1.jpg", distance: 0, isPositive: true, jpeg: [1, 2, 3]),
                candidates: [
                    .init(path: "n.jpg", distance: 0.5, isPositive: false, jpeg: []),
                    .init(path: "p.jpg", distance: 0.75, isPositive: true, jpeg: []),
                    .init(path: "m.jpg", distance: 2, isPositive: false, jpeg: []),
                ])
        ], rankedSet: "val_eval")

    @Test func theLinesAreATableThenFaultsThenCosts() {
        #expect(
            report.lines == [
                "run a<b, 60 steps", "", "general / easy accuracy",
                "            train_eval       val_eval",
                "raw pixels  -                0.580 / 0.750",
                "step 0      -                0.500 / 0.700",
                "step 60     1.000 / 1.000    0.900 / 0.950", "",
                "trainer t left after step 20: 1.2 s lost",
                "evaluation took 3.1 % of training time",
            ])
    }

    @Test func thePageHoldsEverythingAndNothingUnescaped() {
        let page = report.html
        #expect(page.contains("<h1>a&lt;b</h1>"))
        #expect(page.contains("x/&quot;1.jpg"))
        #expect(page.contains("data:image/jpeg;base64,AQID"))
        #expect(page.contains("<td>0.900 / 0.950</td>"))
        for (kind, count) in [("anchor", 1), ("wrong", 1), ("right", 1), ("other", 1)] {
            #expect(page.split(separator: "<figure class=\"\(kind)\">").count == count + 1)
        }
        #expect(!page.contains("<script") && !page.contains("http"))
    }

    @Test func imagesStandBesideEachOtherWithTheirTurn() {
        var scores: [ClusterView.Score] = []
        for (step, train, held) in [(0, 3.5, 3.6), (20, 1.0, 1.25), (40, 0.5, 1.5)] {
            scores.append(.init(step: step, set: "val_images", loss: held, top1: 0.25))
            scores.append(.init(step: step, set: "train_images", loss: train, top1: 0.75))
        }
        let images = RunReport(run: "r", folder: "/r", lastStep: 40, weights: "", scores: scores)
        #expect(
            images.lines.prefix(8) == [
                "run r, 40 steps", "", "of images loss / top-1",
                "         train_images     val_images", "step 0   3.500 / 0.750    3.600 / 0.250",
                "step 20  1.000 / 0.750    1.250 / 0.250",
                "step 40  0.500 / 0.750    1.500 / 0.250",
                "val_images: the least loss is 1.2500 at step 20",
            ], "\(images.lines)")
        #expect(images.html.contains("the least loss is 1.2500 at step 20"))
        let both = RunReport(
            run: "r", folder: "/r", lastStep: 40, weights: "", scores: report.scores + scores)
        #expect(both.lines[2] == "general / easy accuracy, of images loss / top-1")
        #expect(both.sets == ["train_eval", "val_eval", "train_images", "val_images"])
    }

    @Test func aRunWithoutScoresHasAReportToo() {
        let empty = RunReport(run: "r", folder: "/r", lastStep: 0, weights: "", scores: [])
        #expect(empty.lines.first == "run r, 0 steps")
        #expect(empty.html.contains("</html>"))
    }
}
