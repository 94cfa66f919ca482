import Basics
import Testing

/// Expected values come from the `xxhash` package on PyPI (python-xxhash 3.x, `xxh64_hexdigest`).
@Suite struct XXH64Tests {
    static func bytes(_ count: Int) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ 7) }
    }

    @Test func emptyInputHasThePublishedDigest() {
        #expect(XXH64.digest("").hex == "ef46db3751d8e999")
    }
}
