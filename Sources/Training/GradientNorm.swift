import Synchronization

extension StepEffect {
    /// The sum of the gradient's squares, in 64-bit floats.
    ///
    /// Eight interleaved sums for each block of 256 KiB, added in order; then the blocks in order. So
    /// neither threads nor who folded which block change a bit.
    func squaredNorm(threads: Int) -> Double {
        let size = FlatLayout.blockElements
        let blocks = (gradient.count + size - 1) / size
        let sums = Mutex([Double](repeating: 0, count: blocks))
        Parallel.run(parts: max(1, min(threads, blocks))) { part, parts in
            for block in stride(from: part, to: blocks, by: parts) {
                let start = block * size
                let sum = Self.squaredNorm(gradient, start..<min(start + size, gradient.count))
                sums.withLock { $0[block] = sum }
            }
        }
        return sums.withLock { $0 }.reduce(0, +)
    }

    private static func squaredNorm(_ buffer: FloatBuffer, _ range: Range<Int>) -> Double {
        let bytes = buffer.bytes(range)
        var sums = SIMD8<Double>()
        let whole = range.count / 8 * 8
        for at in stride(from: 0, to: whole, by: 8) {
            let values = SIMD8<Double>(
                bytes.loadUnaligned(fromByteOffset: at * 4, as: SIMD8<Float>.self))
            sums += values * values
        }
        for at in whole..<range.count {
            let value = Double(bytes.loadUnaligned(fromByteOffset: at * 4, as: Float.self))
            sums[at - whole] += value * value
        }
        return withExtendedLifetime(buffer) { sums.indices.reduce(0) { $0 + sums[$1] } }
    }
}
