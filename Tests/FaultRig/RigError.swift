/// The rig could not set something up, or a cluster did not do what was waited for.
package struct RigError: Error, CustomStringConvertible {
    package let description: String

    package init(_ description: String) { self.description = description }
}
