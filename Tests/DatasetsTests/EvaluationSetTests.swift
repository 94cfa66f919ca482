import Datasets
import Testing

@Suite struct EvaluationSetTests {
    private static let header = "tuple,position,role,path\n"
    private static let good = """
        0,0,anchor,1/2.jpg
        0,1,negative,0/0.jpg
        0,2,positive,1/0.jpg
        1,0,anchor,0/0.jpg
        1,1,positive,0/2.jpg
        1,2,negative,2/1.jpg
        1,3,negative,1/0.jpg

        """

    private func load(_ text: String) throws -> EvaluationSet {
        let folder = try TemporaryFolder()
        try folder.write(text, "sets/val_eval.csv")
        return try EvaluationSet.load(
            folder.path, name: "val_eval", catalogue: catalogue([3, 3, 3], split: "val"))
    }

    @Test func tuplesIndexUniqueImagesInCatalogueOrder() throws {
        let set = try load(Self.header + Self.good)
        #expect(set.images == ["0/0.jpg", "0/2.jpg", "1/0.jpg", "1/2.jpg", "2/1.jpg"])
        #expect(set.catalogueIndices == [0, 2, 3, 5, 7])
        #expect(
            set.tuples == [
                EvaluationTuple(anchor: 3, positive: 2, negatives: [0]),
                EvaluationTuple(anchor: 0, positive: 1, negatives: [4, 2]),
            ])
        #expect(set.memberCount == 7)
    }

    @Test(arguments: [
        ("0,0,anchor,9/9.jpg\n", ":2: '9/9.jpg' is not in catalogue.csv"),
        ("0,1,anchor,0/0.jpg\n", ":2: tuple '0' position '1' is out of turn"),
        ("1,0,anchor,0/0.jpg\n", ":2: tuple '1' position '0' is out of turn"),
        ("0,0,positive,0/0.jpg\n", ":2: role 'positive' at position 0"),
        ("0,0,anchor,0/0.jpg\n0,1,anchor,0/1.jpg\n", ":3: role 'anchor' at position 1"),
        (
            "0,0,anchor,0/0.jpg\n0,1,positive,0/1.jpg\n0,2,positive,0/2.jpg\n",
            ":4: role 'positive' at position 2"
        ),
        ("0,0,anchor,0/0.jpg\n0,1,friend,0/1.jpg\n", ":3: role 'friend'"),
        ("0,0,anchor,0/0.jpg\n0,1,positive,0/0.jpg\n", ":3: '0/0.jpg' is in tuple 0 twice"),
        (
            "0,0,anchor,0/0.jpg\n0,1,positive,0/1.jpg\n",
            ":3: tuple 0 ends with 2 images and a positive"
        ),
        (
            "0,0,anchor,0/0.jpg\n0,1,negative,0/1.jpg\n0,2,negative,1/1.jpg\n"
                + "1,0,anchor,0/0.jpg\n",
            ":4: tuple 0 ends with 3 images and no positive"
        ),
        ("", "has no tuples"),
    ])
    func wrongRowsAreNamed(rows: String, expected: String) throws {
        let error = #expect(throws: DatasetError.self) { try load(Self.header + rows) }
        #expect(error?.message.contains(expected) == true, "\(error?.message ?? "")")
    }

    @Test func missingSetSaysHowToMakeIt() throws {
        let error = #expect(throws: DatasetError.self) {
            try EvaluationSet.load("/nowhere", name: "val_eval", catalogue: catalogue([1]))
        }
        #expect(
            error?.message
                == "/nowhere/sets/val_eval.csv is missing; make the sets with "
                + "'lineup curate /nowhere'")
    }
}
