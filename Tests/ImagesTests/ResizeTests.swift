import Foundation
import Images
import Testing

@Suite struct ResizeTests {
    @Test func bytesEqualOpenCVs() throws {
        let lines = try Expected.lines("cv2_bytes")
        #expect(lines.count == 6)
        for line in lines {
            let resized = picture(line.integer(0), line.integer(1))
                .resized(width: line.integer(2), height: line.integer(3))
            let expected = line.bytes(from: 4)
            #expect(resized.pixels.count == expected.count)
            // OpenCV's vector code rounds a few bytes at a row's end the other way: 3 % of the
            // smallest picture, 0.1 % of a crop, none of most.
            let differences = zip(resized.pixels, expected).map { abs(Int($0) - Int($1)) }
            #expect((differences.max() ?? 0) <= 1, "\(line.fields.prefix(4))")
            #expect(differences.count { $0 > 0 } * 30 <= differences.count)
        }
    }

    /// Float32 against float32 of another order of operations: 255 * 2^-22 = 6e-5 and some.
    @Test(arguments: [
        ("cv2_floats", ResizeKernel.bilinear), ("tf1_floats", ResizeKernel.legacyBilinear),
    ])
    func floatsEqualTheReference(kind: String, kernel: ResizeKernel) throws {
        let lines = try Expected.lines(kind)
        #expect(lines.count == 6)
        for line in lines {
            let (width, height) = (line.integer(2), line.integer(3))
            let loader = try ImageLoader(
                root: "/",
                input: InputConfiguration(
                    height: height, width: width, normalisation: .unit, kernel: kernel))
            var planes = [Float](repeating: .nan, count: 3 * width * height)
            planes.withUnsafeMutableBufferPointer {
                loader.prepare(picture(line.integer(0), line.integer(1)), into: $0)
            }
            let expected = line.floats(from: 4)
            #expect(expected.count == planes.count)
            for pixel in 0..<width * height {
                for channel in 0..<3 {
                    let value = planes[channel * width * height + pixel] * 255
                    #expect(abs(value - expected[pixel * 3 + channel]) < 5e-4)
                }
            }
        }
    }

    @Test func sameSizeLeavesEveryByte() {
        #expect(picture(12, 9).resized(width: 12, height: 9) == picture(12, 9))
    }

    @Test func cropOutsideIsFilled() {
        let crop = picture(6, 5).cropped(left: -2, top: 3, width: 4, height: 4, fill: (9, 8, 7))
        #expect(Array(crop.pixels[0..<6]) == [9, 8, 7, 9, 8, 7])
        #expect(Array(crop.pixels[6..<12]) == Array(picture(6, 5).pixels[3 * 18..<3 * 18 + 6]))
        #expect(Array(crop.pixels[36..<39]) == [9, 8, 7])
    }

    @Test func cropWhollyOutsideIsTheFill() {
        let crop = picture(6, 5).cropped(left: 40, top: -9, width: 2, height: 2, fill: (1, 2, 3))
        #expect(crop.pixels == [1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3])
    }

    @Test func flippingTwiceIsNothing() {
        #expect(picture(7, 3).flipped().flipped() == picture(7, 3))
        #expect(picture(7, 3).flipped() != picture(7, 3))
    }

    @Test func meanColourIsCutOff() {
        let image = PixelImage(width: 2, height: 1, pixels: [1, 0, 255, 2, 0, 254])
        #expect(image.meanColour == (1, 0, 254))
    }
}
