import FaultRig
import Testing

/// Waits until a process has ended with one line that says why.
func expectRefusal(
    _ process: LineupProcess, code expected: Int32 = 2, saying parts: String...,
    location: SourceLocation = #_sourceLocation
) throws {
    try expectRefusal(process, code: expected, saying: parts, location: location)
}

/// Waits until a process has ended with one line that says why.
func expectRefusal(
    _ process: LineupProcess, code expected: Int32 = 2, saying parts: [String],
    location: SourceLocation = #_sourceLocation
) throws {
    let code = try process.wait(seconds: 60)
    let lines = process.errors.split(separator: "\n").filter {
        $0.hasPrefix("lineup: ") && !$0.hasPrefix("lineup: warning: ")
    }
    #expect(code == expected && lines.count == 1, "\(process.errors)", sourceLocation: location)
    for part in parts {
        #expect(
            lines.first?.contains(part) == true, "\(process.errors)", sourceLocation: location)
    }
}
