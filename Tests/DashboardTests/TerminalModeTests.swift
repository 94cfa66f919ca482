import Dashboard
import Testing

@Suite struct TerminalModeTests {
    @Test func aPipeAndADumbTerminalGetPlainLines() {
        #expect(
            TerminalMode.detect(isTerminal: false, size: (80, 24), environment: ["TERM": "xterm"])
                == .plain)
        for environment in [["TERM": "dumb"], [:], ["TERM": ""]] {
            #expect(
                TerminalMode.detect(isTerminal: true, size: nil, environment: environment) == .plain
            )
        }
    }

    @Test func theTerminalsOwnSizeComesBeforeTheEnvironment() {
        let environment = ["TERM": "xterm", "COLUMNS": "50", "LINES": "10"]
        #expect(
            TerminalMode.detect(isTerminal: true, size: (120, 40), environment: environment)
                == .interactive(columns: 120, rows: 40, colour: true))
        #expect(
            TerminalMode.detect(isTerminal: true, size: (0, 0), environment: environment)
                == .interactive(columns: 50, rows: 10, colour: true))
        #expect(
            TerminalMode.detect(isTerminal: true, size: nil, environment: ["TERM": "xterm"])
                == .interactive(columns: 80, rows: 24, colour: true))
    }

    @Test func noColorIsRespectedUnlessEmpty() {
        for (value, colour) in [("1", false), ("0", false), ("", true)] {
            #expect(
                TerminalMode.detect(
                    isTerminal: true, size: nil, environment: ["TERM": "xterm", "NO_COLOR": value])
                    == .interactive(columns: 80, rows: 24, colour: colour))
        }
    }

    @Test func aFrameReplacesTheLastOneAndClearsTheRest() {
        var screen = TerminalScreen()
        #expect(
            screen.frame(["a", "b", "c"], rows: 24) == "a\u{1B}[K\nb\u{1B}[K\nc\u{1B}[K\n\u{1B}[J")
        #expect(screen.frame(["d"], rows: 24) == "\u{1B}[3Fd\u{1B}[K\n\u{1B}[J")
        #expect(screen.frame(["e", "f"], rows: 2) == "\u{1B}[1Fe\u{1B}[K\n\u{1B}[J")
    }
}
