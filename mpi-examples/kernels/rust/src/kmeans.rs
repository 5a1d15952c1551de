//! k-means (Lloyd): each rank assigns its own points, and one reduction a round gives all the new centres.

use commworld_module::{Array2, ArrayView1, ArrayView2, Call, Error};
use mpi::collective::SystemOperation;
use mpi::traits::CommunicatorCollectives;

pub(crate) fn kmeans(
    call: &Call<'_>,
    points: ArrayView2<'_, f64>,
    centres: ArrayView2<'_, f64>,
    rounds: usize,
) -> Result<Array2<f64>, Error> {
    let world = call.world()?;
    let (k, axes) = centres.dim();
    // Ranks must agree before the first reduction: one that gave up alone would be waited for.
    let fits = i32::from(points.ncols() == axes && k > 0);
    let mut all_fit = 0_i32;
    world.all_reduce_into(&fits, &mut all_fit, SystemOperation::min());
    if all_fit == 0 {
        return Err(Error::value(
            "kmeans: points and centres must have as many columns, and one centre must be there",
        ));
    }
    let mut centres = centres.to_owned();
    for _ in 0..rounds {
        call.check_interrupt()?;
        // Of each centre the sum of its points, and their number.
        let own = sums(points, centres.view());
        let mut all = Array2::<f64>::zeros(own.dim());
        world.all_reduce_into(
            own.as_slice().expect("in C order"),
            all.as_slice_mut().expect("in C order"),
            SystemOperation::sum(),
        );
        for (mut centre, sum) in centres.rows_mut().into_iter().zip(all.rows()) {
            // A centre without points stays where it is.
            if sum[axes] > 0.0 {
                centre.assign(&sum.slice(commworld_module::ndarray::s![..axes]).mapv(|x| x / sum[axes]));
            }
        }
    }
    Ok(centres)
}

fn sums(points: ArrayView2<'_, f64>, centres: ArrayView2<'_, f64>) -> Array2<f64> {
    let (k, axes) = centres.dim();
    let mut sums = Array2::zeros((k, axes + 1));
    for point in points.rows() {
        let mut sum = sums.row_mut(nearest(point, centres));
        for (sum, x) in sum.iter_mut().zip(point.iter().chain([&1.0])) {
            *sum += x;
        }
    }
    sums
}

fn nearest(point: ArrayView1<'_, f64>, centres: ArrayView2<'_, f64>) -> usize {
    let distance2 =
        |centre: ArrayView1<'_, f64>| -> f64 { point.iter().zip(centre).map(|(x, c)| (x - c).powi(2)).sum() };
    let distances = centres.rows().into_iter().map(distance2).enumerate();
    distances.min_by(|(_, left), (_, right)| left.total_cmp(right)).map_or(0, |(at, _)| at)
}

#[cfg(test)]
mod tests {
    use commworld_module::ndarray::array;

    use super::*;

    #[test]
    fn points_are_added_to_the_nearest_centre() {
        let points = array![[0.0, 1.0], [10.0, 10.0], [0.0, 3.0]];
        let centres = array![[9.0, 9.0], [1.0, 1.0]];
        assert_eq!(sums(points.view(), centres.view()), array![[10.0, 10.0, 1.0], [0.0, 4.0, 2.0]]);
    }
}
