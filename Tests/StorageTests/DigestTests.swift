import Basics
import Foundation
import Storage
import Testing

@Suite struct DigestTests {
    private struct Vectors: Decodable {
        struct Vector: Decodable {
            let count: Int
            let seed: String
            let digest: String
        }
        let xxh64: [Vector]
        let weights: String
        let state: String
    }

    private static func vectors() throws -> Vectors {
        let data = try Data(contentsOf: URL(fileURLWithPath: fixture("digests.json")))
        return try JSONDecoder().decode(Vectors.self, from: data)
    }

    @Test func xxh64AgreesWithThePythonPackage() throws {
        let bytes = (0..<1000).map { UInt8(($0 * 31 + 7) % 256) }
        for vector in try Self.vectors().xxh64 {
            let seed = try #require(UInt64(vector.seed))
            let digest = bytes[..<vector.count].withUnsafeBytes { XXH64.digest($0, seed: seed) }
            #expect(digest.hex == vector.digest, "\(vector.count) bytes, seed \(seed)")
        }
    }

    @Test func digestsOfAStateAgreeWithAnIndependentProgram() throws {
        let tensors = [
            tensor("network/conv.weight", [2, 3, 4], (0..<24).map { Float($0) / 8 }),
            tensor("network/bn.running_mean", [2], [0.25, -0.5]),
            tensor("optimizer/m/conv.weight", [2, 3, 4], Array(repeating: 1e-3, count: 24)),
        ]
        let digests = StateDigests(of: tensors, step: 60)
        let expected = try Self.vectors()
        #expect(digests.weights.hex == expected.weights)
        #expect(digests.state.hex == expected.state)
    }

    @Test func castagnoliChecksumHasItsStandardValues() {
        // RFC 3720, appendix B.4.
        #expect(CRC32C.checksum(Array(repeating: UInt8(0), count: 32)) == 0x8A91_36AA)
        #expect(CRC32C.checksum(Array(repeating: UInt8(0xFF), count: 32)) == 0x62A8_AB43)
        #expect(CRC32C.checksum(0..<32) == 0x46DD_794E)
        #expect(CRC32C.checksum((0..<32).reversed()) == 0x113F_DB5C)
        #expect(CRC32C.checksum("123456789".utf8) == 0xE306_9283)
        #expect(CRC32C.checksum([]) == 0)
    }
}
