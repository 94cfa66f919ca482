import Basics
import Foundation
import Images
import Testing

@Suite struct ImageLoaderTests {
    private static func load(
        _ image: PixelImage, _ input: InputConfiguration, _ random: CounterRandom? = nil
    ) throws -> [Float] {
        let loader = try ImageLoader(root: "/", input: input)
        var planes = [Float](repeating: .nan, count: input.elementCount)
        planes.withUnsafeMutableBufferPointer {
            loader.prepare(image, augmentation: random, into: $0)
        }
        return planes
    }

    private static func random(_ item: UInt64) -> CounterRandom {
        CounterRandom(seed: 3, step: 1, slot: 2, item: item, purpose: .augmentation)
    }

    @Test func planesFollowRedGreenBlue() throws {
        let image = PixelImage(width: 2, height: 2, red: 255, green: 0, blue: 51)
        let planes = try Self.load(image, .init(height: 2, width: 2))
        #expect(planes[0..<4].allSatisfy { abs($0 - 1) < 1e-6 })
        #expect(planes[4..<8].allSatisfy { $0 == -1 })
        #expect(planes[8..<12].allSatisfy { abs($0 + 0.6) < 1e-6 })
    }

    @Test func normalisationsGiveTheirNumbers() throws {
        let image = PixelImage(width: 1, height: 1, red: 100, green: 150, blue: 200)
        let imagenet = try Self.load(
            image, .init(height: 1, width: 1, normalisation: .imagenet))
        let expected: [Float] = [
            (100 / 255 - 0.485) / 0.229, (150 / 255 - 0.456) / 0.224, (200 / 255 - 0.406) / 0.225,
        ]
        #expect(zip(imagenet, expected).allSatisfy { abs($0 - $1) < 2e-6 })
        let mean = try Self.load(
            image, .init(height: 1, width: 1, normalisation: .meanSubtracted))
        #expect(zip(mean, [-23.68, 33.22, 96.06]).allSatisfy { abs($0 - $1) < 1e-4 })
        let unit = try Self.load(image, .init(height: 1, width: 1, normalisation: .unit))
        #expect(zip(unit, [100 / 255, 150 / 255, 200 / 255]).allSatisfy { abs($0 - $1) < 1e-6 })
    }

    @Test func flipMirrorsAboutHalfOfTheImages() throws {
        let input = InputConfiguration(height: 8, width: 8, flip: true)
        let plain = try Self.load(picture(8, 8), input)
        let mirrored = try Self.load(picture(8, 8).flipped(), input)
        var flips = 0
        for item in 0..<200 {
            let varied = try Self.load(picture(8, 8), input, Self.random(UInt64(item)))
            #expect(varied == plain || varied == mirrored)
            if varied == mirrored { flips += 1 }
        }
        // Binomial(200, 1/2): four standard deviations are 28.
        #expect((72...128).contains(flips))
    }

    @Test func cropIsAWindowOfTheLargerResize() throws {
        let input = InputConfiguration(
            height: 6, width: 5, crop: true, cropFromHeight: 9, cropFromWidth: 11)
        let whole = try Self.load(picture(20, 30), .init(height: 9, width: 11))
        var places: Set<[Int]> = []
        for item in 0..<400 {
            let varied = try Self.load(picture(20, 30), input, Self.random(UInt64(item)))
            let found = (0...3).flatMap { top in (0...6).map { [top, $0] } }.filter { place in
                (0..<3).allSatisfy { channel in
                    (0..<6).allSatisfy { row in
                        let from = channel * 99 + (place[0] + row) * 11 + place[1]
                        let to = channel * 30 + row * 5
                        return whole[from..<from + 5] == varied[to..<to + 5]
                    }
                }
            }
            #expect(found.count == 1)
            places.formUnion(found)
        }
        #expect(places.count == 28)
    }

    @Test func occlusionCoversOneRectangleOfItsShare() throws {
        var input = InputConfiguration(height: 40, width: 30)
        let plain = try Self.load(picture(40, 30), input)
        input.occlusion = Occlusion(start: 0.25, end: 0.25)
        var sizes: Set<[Int]> = []
        for item in 0..<200 {
            let covered = try Self.load(picture(40, 30), input, Self.random(UInt64(item)))
            let places = (0..<1_200).filter { covered[$0] != plain[$0] }
            let (rows, columns) = (Set(places.map { $0 / 30 }), Set(places.map { $0 % 30 }))
            // Noise may meet the pixel that was there.
            #expect(places.count > rows.count * columns.count * 98 / 100)
            #expect((260...300).contains(rows.count * columns.count))
            #expect(rows.max()! - rows.min()! == rows.count - 1)
            #expect(columns.max()! - columns.min()! == columns.count - 1)
            sizes.insert([rows.count, columns.count])
        }
        #expect(sizes.count > 10)
    }

    @Test func occlusionIsNoiseOfTheImagesOwnMeanAndDeviation() throws {
        let input = InputConfiguration(
            height: 200, width: 200, occlusion: Occlusion(start: 1, end: 1))
        let plain = try Self.load(picture(200, 200), .init(height: 200, width: 200))
        let covered = try Self.load(picture(200, 200), input, Self.random(3))
        func moments(_ values: ArraySlice<Float>) -> (mean: Double, deviation: Double) {
            let mean = values.reduce(0) { $0 + Double($1) } / Double(values.count)
            let square = values.reduce(0) { $0 + (Double($1) - mean) * (Double($1) - mean) }
            return (mean, (square / Double(values.count)).squareRoot())
        }
        for channel in 0..<3 {
            let range = channel * 40_000..<(channel + 1) * 40_000
            let (before, after) = (moments(plain[range]), moments(covered[range]))
            // Four standard errors of the mean of 40,000.
            #expect(abs(before.mean - after.mean) < before.deviation / 50)
            #expect(abs(before.deviation - after.deviation) < before.deviation / 50)
        }
    }

    @Test func occlusionGrowsInAStraightLine() throws {
        let ramp = Occlusion(start: 0.1, end: 0.5, rampSteps: 100)
        #expect(ramp.share(step: 1) == 0.1)
        #expect(abs(ramp.share(step: 51) - 0.3) < 1e-12)
        #expect(ramp.share(step: 101) == 0.5 && ramp.share(step: 5_000) == 0.5)
        #expect(Occlusion(start: 0.1, end: 0.2).share(step: 1) == 0.2)
        // Less than a pixel covers nothing.
        let input = InputConfiguration(
            height: 8, width: 8, occlusion: Occlusion(start: 0.01, end: 0.01))
        let plain = try Self.load(picture(8, 8), .init(height: 8, width: 8))
        #expect(try Self.load(picture(8, 8), input, Self.random(1)) == plain)
    }

    @Test func evaluationIgnoresTheAugmentation() throws {
        let varied = InputConfiguration(
            height: 6, width: 6, flip: true, crop: true, cropFromHeight: 9, cropFromWidth: 9,
            occlusion: Occlusion(start: 0.5, end: 0.5))
        let plain = try Self.load(picture(20, 20), .init(height: 6, width: 6))
        #expect(try Self.load(picture(20, 20), varied) == plain)
    }

    @Test func sameStreamGivesTheSameImage() throws {
        let input = InputConfiguration(
            height: 6, width: 6, flip: true, crop: true, cropFromHeight: 9, cropFromWidth: 9)
        let first = try Self.load(picture(20, 20), input, Self.random(5))
        #expect(try Self.load(picture(20, 20), input, Self.random(5)) == first)
    }

    @Test func otherBytesThanCataloguedAreAnError() throws {
        let folder = try TemporaryFolder()
        let bytes = try JPEG.encode(picture(16, 16))
        _ = try folder.write(bytes, "a.jpg")
        let loader = try ImageLoader(root: folder.path, input: .init(height: 8, width: 8))
        var planes = [Float](repeating: 0, count: 192)
        try planes.withUnsafeMutableBufferPointer { planes in
            try loader.load("a.jpg", expecting: ImageFingerprint(of: bytes), into: planes)
            for wrong in [
                ImageFingerprint(byteCount: bytes.count + 1, digest: 0),
                ImageFingerprint(byteCount: bytes.count, digest: 0),
            ] {
                let error = #expect(throws: ImageError.self) {
                    try loader.load("a.jpg", expecting: wrong, into: planes)
                }
                #expect(error?.code == .differs)
                #expect(error?.message.contains("a.jpg") == true)
            }
            let missing = #expect(throws: ImageError.self) {
                try loader.load("b.jpg", into: planes)
            }
            #expect(missing?.code == .missing)
        }
    }

    @Test func sizesThatMakeNoSenseAreRefused() {
        for input in [
            InputConfiguration(height: 0, width: 8), InputConfiguration(height: 8, width: -1),
            InputConfiguration(
                height: 8, width: 8, crop: true, cropFromHeight: 7, cropFromWidth: 9),
        ] {
            let error = #expect(throws: ImageError.self) { try ImageLoader(root: "", input: input) }
            #expect(error?.code == .invalidSize)
        }
    }

    @Test func loadsOnManyThreadsAlike() async throws {
        let folder = try TemporaryFolder()
        for index in 0..<8 {
            _ = try folder.write(JPEG.encode(picture(30 + index, 25)), "\(index).jpg")
        }
        let loader = try ImageLoader(root: folder.path, input: .init(height: 12, width: 12))
        @Sendable func load(_ index: Int) throws -> [Float] {
            var planes = [Float](repeating: 0, count: 432)
            try planes.withUnsafeMutableBufferPointer {
                try loader.load("\(index % 8).jpg", into: $0)
            }
            return planes
        }
        let alone = try (0..<8).map(load)
        try await withThrowingTaskGroup(of: Bool.self) { group in
            for index in 0..<64 {
                group.addTask { try load(index) == alone[index % 8] }
            }
            for try await equal in group { #expect(equal) }
        }
    }
}
