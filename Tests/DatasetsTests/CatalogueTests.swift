import Basics
import Datasets
import Testing

@Suite struct CatalogueTests {
    private static let header =
        "path,identity,split,camera,sequence,frame,track,category,box,role,occluded,bytes,digest\n"

    private func message(_ text: String) throws -> String {
        let folder = try TemporaryFolder()
        try folder.write(text, "catalogue.csv")
        let error = #expect(throws: DatasetError.self) { try Catalogue(loading: folder.path) }
        return error?.message.replacing(folder.path, with: "D") ?? ""
    }

    @Test func writtenCatalogueIsReadBack() throws {
        let samples = [
            Sample(
                path: "a/b.jpg", identity: "x, \"y\"", split: "train", camera: "c1", sequence: "s",
                frame: 3, track: 0, category: "bag",
                box: Box(xmin: -1, ymin: 2, xmax: 30, ymax: 40), role: "object", occluded: true,
                byteCount: 123, digest: 0xFFFF_0000_1234_5678),
            Sample(path: "c.jpg", identity: "", split: "val", byteCount: 0, digest: 0),
        ]
        let folder = try TemporaryFolder()
        let written = try Catalogue(root: folder.path, samples: samples)
        try written.write(to: folder.path)
        let read = try Catalogue(loading: folder.path)
        #expect(read.samples == samples)
        #expect(read.digest == written.digest)
        #expect(read.index(of: "c.jpg") == 1)
        #expect(read.index(of: "d.jpg") == nil)
    }

    @Test func columnsMayStandInAnyOrder() throws {
        let folder = try TemporaryFolder()
        try folder.write(
            "digest,bytes,path,split,identity\r\n00000000000000ff,7,a.jpg,test,0002\r\n",
            "catalogue.csv")
        let samples = try Catalogue(loading: folder.path).samples
        #expect(
            samples == [
                Sample(path: "a.jpg", identity: "0002", split: "test", byteCount: 7, digest: 255)
            ])
    }

    @Test func unknownColumnIsNamed() throws {
        #expect(
            try message("path,identity,split,bytes,digest,colour\n")
                .hasPrefix("D/catalogue.csv:1: unknown column 'colour'; known are path, identity"))
    }

    @Test func missingColumnIsNamed() throws {
        #expect(
            try message("path,identity,split,bytes\n")
                == "D/catalogue.csv:1: column 'digest' is missing; the header is "
                + "'path,identity,split,bytes'")
    }

    @Test func repeatedPathNamesBothLines() throws {
        let row = "a.jpg,1,train,,,,,,,,,5,00000000000000ff\n"
        #expect(
            try message(Self.header + row + row)
                == "D/catalogue.csv:3: path 'a.jpg' is already on line 2; every image is listed "
                + "once")
    }

    @Test(arguments: [
        ("a.jpg,1,train,,,,,,,,,x,00000000000000ff", "bytes is 'x'"),
        ("a.jpg,1,train,,,,,,,,,5,ff", "digest is 'ff'"),
        ("a.jpg,1,train,,,one,,,,,,5,00000000000000ff", "frame is 'one'"),
        ("a.jpg,1,train,,,,,,1 2 3,,,5,00000000000000ff", "box is '1 2 3'"),
        ("a.jpg,1,train,,,,,,9 2 3 4,,,5,00000000000000ff", "box is '9 2 3 4'"),
        ("a.jpg,1,train,,,,,,,,yes,5,00000000000000ff", "occluded is 'yes'"),
        ("a.jpg,1,train", "3 fields; expected 13"),
        ("\"a.jpg,1,train,,,,,,,,,5,00000000000000ff", "no closing quote"),
        ("\"a\"b.jpg,1,train,,,,,,,,,5,00000000000000ff", "follows a closing quote"),
        ("/a.jpg,1,train,,,,,,,,,5,00000000000000ff", "must be relative"),
        ("b/../../a.jpg,1,train,,,,,,,,,5,00000000000000ff", "must be relative"),
    ])
    func wrongRowNamesItsLine(row: String, expected: String) throws {
        let text = try message(Self.header + row + "\n")
        #expect(text.hasPrefix("D/catalogue.csv:2: ") && text.contains(expected), "\(text)")
    }

    @Test func cutOffFileIsAnError() throws {
        #expect(
            try message(Self.header + "a.jpg,1,train,,,,,,,,,5,00000000000000ff")
                .contains("the last line has no end"))
    }

    @Test func emptyAndMissingFilesAreErrors() throws {
        #expect(try message("") == "D/catalogue.csv is empty; expected a header line")
        let error = #expect(throws: DatasetError.self) { try Catalogue(loading: "/nowhere") }
        #expect(error?.message == "/nowhere/catalogue.csv is missing")
        #expect(error?.isBadInput == true)
    }

    @Test func binaryRubbishIsAnErrorNotATrap() throws {
        let folder = try TemporaryFolder()
        try folder.write((0..<500).map { UInt8($0 * 7 % 256) }, "catalogue.csv")
        #expect(throws: DatasetError.self) { try Catalogue(loading: folder.path) }
    }
}
