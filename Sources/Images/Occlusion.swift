import Basics

/// Covers a part of a training image with noise, so that a network does not rely on one spot.
///
/// A rectangle of a given share of the area: its width is drawn between half and twice the side of a square
/// of that area, its place anywhere. It is filled, channel by channel, with noise of the image's own mean and
/// standard deviation.
public struct Occlusion: Sendable, Hashable {
    /// Share of the area at the first step.
    public var start: Double
    /// Share of the area from ``rampSteps`` on.
    public var end: Double
    /// Steps in which the share goes from one to the other in a straight line; 0 is at the end at once.
    public var rampSteps: Int

    /// Covers nothing unless told otherwise.
    public init(start: Double = 0, end: Double = 0, rampSteps: Int = 0) {
        self.start = start
        self.end = end
        self.rampSteps = rampSteps
    }

    /// Whether no step has any.
    public var isNone: Bool { start == 0 && end == 0 }

    /// Share of the area at a step, the first of which is 1.
    public func share(step: Int) -> Double {
        guard rampSteps > 0, step <= rampSteps else { return end }
        return start + Double(step - 1) / Double(rampSteps) * (end - start)
    }

    /// Covers a part of an image.
    ///
    /// Normalised pixels are as good as bytes: mean and deviation scale with them.
    ///
    /// - Parameters:
    ///   - image: three planes of `height` x `width`.
    ///   - share: of the area, from 0 to 1; less than a pixel covers nothing.
    ///   - random: decides size, place and noise, in this order.
    static func cover(
        _ image: UnsafeMutableBufferPointer<Float>, height: Int, width: Int, share: Double,
        _ random: inout CounterRandom
    ) {
        let area = Int(share * Double(height * width))
        guard area > 0 else { return }
        let side = Double(area).squareRoot()
        let (least, most) = (max(1, Int(side / 2)), max(2, Int(2 * side)))
        let columns = min(width, least + random.index(below: most - least))
        let rows = min(height, max(1, area / columns))
        let top = random.index(below: height - rows + 1)
        let left = random.index(below: width - columns + 1)
        for channel in 0..<3 {
            let plane = UnsafeMutableBufferPointer(
                rebasing: image[channel * height * width..<(channel + 1) * height * width])
            let (mean, deviation) = moments(plane)
            for row in top..<top + rows {
                for column in left..<left + columns {
                    plane[row * width + column] = mean + deviation * noise(&random)
                }
            }
        }
    }

    private static func moments(
        _ plane: UnsafeMutableBufferPointer<Float>
    ) -> (mean: Float, deviation: Float) {
        var (sum, squares) = (0.0, 0.0)
        for value in plane { sum += Double(value) }
        let mean = sum / Double(plane.count)
        for value in plane { squares += (Double(value) - mean) * (Double(value) - mean) }
        return (Float(mean), Float((squares / Double(plane.count)).squareRoot()))
    }

    /// The sum of eight uniform numbers, with mean 0 and variance 1: near to normal, and without a
    /// logarithm, whose last bit depends on the system's library.
    private static func noise(_ random: inout CounterRandom) -> Float {
        var sum = 0
        for _ in 0..<2 {
            let bits = random.next()
            sum += Int(bits & 0xFFFF) + Int(bits >> 16 & 0xFFFF) + Int(bits >> 32 & 0xFFFF)
            sum += Int(bits >> 48)
        }
        return (Float(sum) - 262_140) / (65_536 * 0.816_496_6)
    }
}
