import Dashboard
import Testing

@Suite struct TerminalRendererTests {
    private let view = ClusterView(
        run: "base", state: "training", step: 40, totalSteps: 60, loss: 0.43211,
        fractionPositive: 0.2314, learningRate: 3e-4, samplesPerSecond: 412.34, secondsLeft: 75,
        workers: [
            .init(
                name: "t1", role: "trainer", host: "node-a", device: "cuda:0", phase: "computing",
                slots: 2, silentSeconds: 0.3),
            .init(
                name: "t2", role: "trainer", host: "node-b", device: "cuda:1", phase: "ready",
                lagSteps: 3, slots: 2, silentSeconds: 9),
            .init(
                name: "e1", role: "evaluator", host: "node-a", device: "cpu", phase: "val_eval",
                isConnected: false),
        ],
        scores: [
            .init(step: 0, set: "val_eval", general: 0.51, easy: 0.7),
            .init(step: 20, set: "val_eval", general: 0.8, easy: 0.9),
            .init(step: 20, set: "train_eval", general: 0.85, easy: 0.95),
        ],
        warnings: ["disk is nearly full"], events: ["t3 left: killed"])

    @Test func theScreenShowsEverythingThatIsAskedFor() {
        let lines = TerminalRenderer.render(view, columns: 100, colour: false)
        let text = lines.joined(separator: "\n")
        for part in [
            "base  training", "step 40/60", "66.7 %", "1 min 15 s left", "loss 0.4321",
            "fraction_positive 0.231", "learning rate 0.0003", "samples/s 412.3", "node-a",
            "cuda:1",
            "computing", "lost", "train_eval", "0.800 / 0.900", "warning: disk is nearly full",
            "t3 left: killed",
        ] {
            #expect(text.contains(part), "\(part) in\n\(text)")
        }
        #expect(lines[0].count == 100)
        #expect(!text.contains("\u{1B}"))
    }

    @Test func columnsOfATableStandUnderTheirTitles() throws {
        let lines = TerminalRenderer.render(view, columns: 100, colour: false)
        let title = try #require(lines.first { $0.hasPrefix("worker") })
        let row = try #require(lines.first { $0.hasPrefix("t1") })
        for (name, cell) in [("role", "trainer"), ("host", "node-a"), ("phase", "computing")] {
            let under = title.firstRange(of: name)?.lowerBound.utf16Offset(in: title)
            #expect(under == row.firstRange(of: cell)?.lowerBound.utf16Offset(in: row), "\(name)")
        }
    }

    @Test func theScoresOfASetThatIsNotThereYetAreADash() throws {
        let lines = TerminalRenderer.render(view, columns: 100, colour: false)
        let row = try #require(lines.first { $0.hasPrefix("0   ") })
        #expect(row.split(separator: " ", maxSplits: 2)[1] == "-")
    }

    @Test(arguments: [1, 2, 10, 40, 69, 70, 89, 90, 200, 500])
    func noLineIsWiderThanTheTerminal(columns: Int) {
        for line in TerminalRenderer.render(view, columns: columns, colour: false) {
            #expect(line.count <= columns)
        }
    }

    @Test func aNarrowTerminalLosesHostsFirst() {
        let narrow = TerminalRenderer.render(view, columns: 75, colour: false).joined()
        #expect(!narrow.contains("node-b") && narrow.contains("cuda:1"))
        #expect(
            !TerminalRenderer.render(view, columns: 60, colour: false).joined().contains("cuda:1"))
    }

    @Test func colourChangesNothingButEscapeSequences() {
        let coloured = TerminalRenderer.render(view, columns: 80, colour: true)
        let bare = coloured.map { $0.replacing(/\u{1B}\[[0-9;]*m/, with: "") }
        #expect(bare == TerminalRenderer.render(view, columns: 80, colour: false))
        #expect(coloured.joined().contains("\u{1B}["))
    }

    @Test func rowsLimitTheScreen() {
        #expect(TerminalRenderer.render(view, columns: 80, rows: 4, colour: false).count == 4)
    }

    @Test func manyWorkersAreCounted() {
        var many = view
        many.workers = (0..<100).map {
            .init(name: "t\($0)", role: "trainer", host: "h", device: "cpu", phase: "ready")
        }
        let lines = TerminalRenderer.render(many, columns: 80, colour: false)
        #expect(lines.contains("and 84 more"))
    }

    @Test func namesFromTheNetworkCannotSteerTheTerminal() {
        var hostile = view
        hostile.run = "a\u{1B}[2Jb\nc\u{9B}d\u{202E}"
        hostile.events = ["x\r\u{7}y"]
        let lines = TerminalRenderer.render(hostile, columns: 200, colour: false)
        #expect(lines[0].hasPrefix("a?[2Jb?c?d?"))
        #expect(lines.contains("x??y"))
        #expect(!TerminalRenderer.plainLine(hostile).contains("\u{1B}"))
    }

    @Test func beforeTheFirstStepNothingIsMadeUp() {
        let empty = ClusterView(run: "", state: "waiting for trainers", step: 0, totalSteps: 0)
        let text = TerminalRenderer.render(empty, columns: 80, colour: false).joined(
            separator: "\n")
        #expect(text.contains("step 0/0  0.0 %"))
        #expect(!text.contains("loss") && !text.contains("nan"))
        #expect(
            TerminalRenderer.plainLine(empty)
                == "waiting for trainers: step 0/0  0 trainers, 0 evaluators")
    }

    @Test func aPipeGetsOneLine() {
        #expect(
            TerminalRenderer.plainLine(view)
                == "training: step 40/60  loss 0.4321  fraction_positive 0.231  learning_rate 0.0003"
                + "  412.3 samples/s  1 min 15 s left  2 trainers, 0 evaluators")
    }

    @Test func numbersThatAreNoneAreShownAndNotTrappedOn() {
        var broken = view
        broken.loss = .nan
        broken.secondsLeft = .infinity
        broken.samplesPerSecond = -.infinity
        broken.step = .max
        broken.totalSteps = 1
        #expect(
            TerminalRenderer.render(broken, columns: 80, colour: false).joined().contains(
                "loss nan"))
        #expect(TerminalRenderer.plainLine(broken).contains("? left"))
    }
}
