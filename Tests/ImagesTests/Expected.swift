import Foundation
import Images

/// A line that `Fixtures/make_expected.py` wrote, without its kind.
struct Expected {
    let fields: [Substring]

    static func lines(_ kind: String) throws -> [Expected] {
        let path = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .appendingPathComponent("Fixtures/expected.txt")
        return try String(contentsOf: path, encoding: .utf8).split(separator: "\n")
            .map { $0.split(separator: " ") }
            .filter { $0.first == kind[...] }
            .map { Expected(fields: Array($0.dropFirst())) }
    }

    func integer(_ place: Int) -> Int { Int(fields[place]) ?? .min }

    func bytes(from place: Int) -> [UInt8] { fields[place...].compactMap { UInt8($0) } }

    func floats(from place: Int) -> [Float] { fields[place...].compactMap { Float($0) } }
}

/// The picture that the script makes by the same formula.
func picture(_ width: Int, _ height: Int) -> PixelImage {
    var pixels: [UInt8] = []
    for y in 0..<height {
        for x in 0..<width {
            for c in 0..<3 {
                let value =
                    x * 7 + y * 13 + c * 29 + (x * y) % 31 * 5 + (x * x * 3 + y * c) % 17 * 4
                pixels.append(UInt8(value % 256))
            }
        }
    }
    return PixelImage(width: width, height: height, pixels: pixels)
}

/// A folder of its own that goes with the object.
final class TemporaryFolder {
    let path: String

    init() throws {
        path = NSTemporaryDirectory() + "lineup-images-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func write(_ bytes: [UInt8], _ name: String) throws -> String {
        let file = "\(path)/\(name)"
        try Data(bytes).write(to: URL(fileURLWithPath: file))
        return file
    }
}
