import Foundation
import Images
import Testing

@Suite struct JPEGTests {
    @Test func pixelsEqualPillows() throws {
        let lines = try Expected.lines("jpeg")
        #expect(lines.count == 3)
        for line in lines {
            let bytes = try #require(Data(base64Encoded: String(line.fields[0])))
            let image = try JPEG.decode(Array(bytes), name: "fixture")
            #expect(image.width == line.integer(1) && image.height == line.integer(2))
            #expect(image.pixels == line.bytes(from: 3))
        }
    }

    @Test func decodedSizeIsTheEncodedOne() throws {
        let image = PixelImage(width: 17, height: 9, red: 200, green: 100, blue: 50)
        let bytes = try JPEG.encode(image)
        let decoded = try JPEG.decode(bytes, name: "a.jpg")
        #expect(try JPEG.size(bytes, name: "a.jpg") == (17, 9))
        #expect(decoded.width == 17 && decoded.height == 9)
        #expect(zip(decoded.pixels, image.pixels).allSatisfy { abs(Int($0) - Int($1)) <= 3 })
    }

    @Test func encodingIsReproducible() throws {
        #expect(try JPEG.encode(picture(40, 30)) == JPEG.encode(picture(40, 30)))
    }

    @Test func missingFileIsNamed() {
        let error = #expect(throws: ImageError.self) { try JPEG.read("/nowhere/a.jpg") }
        #expect(error?.code == .missing)
        #expect(error?.message == "/nowhere/a.jpg is missing")
        #expect(error?.isBadInput == true)
    }

    @Test func folderIsNoImage() {
        let error = #expect(throws: ImageError.self) { try JPEG.read("/usr") }
        #expect(error?.code == .unreadable)
    }

    @Test func emptyFileIsNamed() {
        let error = #expect(throws: ImageError.self) { try JPEG.decode([], name: "x.jpg") }
        #expect(error?.message == "x.jpg is empty; expected a JPEG")
    }

    @Test func otherFormatsShowTheirFirstBytes() {
        let error = #expect(throws: ImageError.self) {
            try JPEG.decode(
                Array("\u{89}PNG".unicodeScalars.map { UInt8($0.value) }), name: "x.png")
        }
        #expect(error?.code == .notJPEG)
        #expect(error?.message.contains("89 50 4e 47") == true)
    }

    @Test func everyTruncationIsAnError() throws {
        let bytes = try JPEG.encode(picture(64, 48))
        for length in stride(from: 2, to: bytes.count - 2, by: 7) {
            let error = #expect(throws: ImageError.self, "\(length) of \(bytes.count) bytes") {
                try JPEG.decode(Array(bytes.prefix(length)), name: "cut.jpg")
            }
            #expect(error?.code == .corrupt)
            #expect(error?.message.contains("cut.jpg") == true)
        }
    }

    /// Damage may go unseen, but never crashes and never changes the size silently.
    @Test func damagedBytesNeverTrap() throws {
        let bytes = try JPEG.encode(picture(64, 48))
        for place in stride(from: 2, to: bytes.count, by: 3) {
            var damaged = bytes
            damaged[place] ^= 0xFF
            _ = try? JPEG.decode(damaged, name: "damaged.jpg")
        }
    }

    @Test func printingColoursAreRefused() throws {
        let line = try #require(try Expected.lines("cmyk").first)
        let bytes = try #require(Data(base64Encoded: String(line.fields[0])))
        let error = #expect(throws: ImageError.self) {
            try JPEG.decode(Array(bytes), name: "print.jpg")
        }
        #expect(error?.code == .unsupported)
    }
}
