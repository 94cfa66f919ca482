import Basics

extension Settings {
    /// Checks that a loss over given triplets is given some, and that they go with the rest.
    func checkTriplets() throws(SettingsError) {
        func refuse(_ message: String) -> SettingsError { SettingsError(.conflict, message) }
        guard batch.isOfTriplets else {
            if let file = data.triplets {
                throw refuse(
                    "data.triplets is \(file), but batch.triplets is 0, so that none is used; set how "
                        + "many a slot has, such as batch.triplets=16, or leave the file out")
            }
            if let loss = loss.parts.first(where: \.name.isOfTriplets) {
                throw refuse(
                    "\(loss.name.rawValue) takes given triplets, but batch.triplets is 0; set "
                        + "batch.triplets, such as 16, and data.triplets, which 'lineup mine' writes"
                )
            }
            return
        }
        let others = batch.namesOfShape + (batch.images > 0 ? ["batch.images"] : [])
        guard others.isEmpty else {
            throw refuse(
                "batch.triplets is \(batch.triplets), which makes slots of given triplets, but "
                    + "\(others.spoken("and")) \(others.count > 1 ? "are" : "is") set; leave one or "
                    + "the other out")
        }
        guard data.triplets != nil else {
            throw refuse(
                "batch.triplets is \(batch.triplets), but data.triplets names no file; set it, "
                    + "'lineup mine' writes one")
        }
        if let digest = data.tripletsDigest, UInt64(hex: digest) == nil {
            throw refuse(
                "data.triplets_digest is '\(digest)'; expected 16 hexadecimal digits, or leave it out: "
                    + "the run writes it down")
        }
    }
}
