internal import COpenBLAS

/// The library that multiplies matrices here.
public enum OpenBLAS {
    /// Its release and the processor whose kernels it has chosen, such as `0.3.26/Haswell`.
    public static let version: String = {
        // "OpenBLAS 0.3.26 NO_LAPACKE ...": both texts are the library's own and never freed.
        let release = String(cString: openblas_get_config()).split(separator: " ").dropFirst().first
        return "\(release ?? "unknown")/\(String(cString: openblas_get_corename()))"
    }()
}
