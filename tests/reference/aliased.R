# Reference values for models whose X is not of full rank: Rscript aliased.R [aliased.json]
# lm, glm, lmer, glmer drop columns that are combinations of earlier ones; emmeans and estimability
# say which means and predictions can be estimated all the same. The data are made here and stored.
suppressPackageStartupMessages({ library(lme4); library(emmeans); library(estimability); library(jsonlite) })
invisible(Sys.setlocale("LC_COLLATE", "C"))
options(contrasts = c("contr.treatment", "contr.poly"))
emm_options(lmer.df = "asymptotic", msg.interaction = FALSE)
here <- dirname(normalizePath(sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE))))
args <- commandArgs(TRUE)
out <- if (length(args)) args[1] else file.path(here, "aliased.json")

set.seed(20)
d <- expand.grid(fa = c("a1", "a2", "a3"), fb = c("b1", "b2"), rep = 1:8, stringsAsFactors = FALSE)
d <- d[!(d$fa == "a2" & d$fb == "b2"), ]
n <- nrow(d)
d$g <- paste0("g", sample(rep(1:8, 5)))
d$x <- round(rnorm(n), 2); d$z <- round(rnorm(n), 2)
d$twice <- 2 * d$x + 1
d$d1 <- as.numeric(d$fa == "a1"); d$d2 <- as.numeric(d$fa == "a2"); d$d3 <- as.numeric(d$fa == "a3")
d$const <- 3
d$sub <- paste0(d$fa, ifelse(d$rep > 4, "s", "t"))
u <- setNames(rnorm(8, sd = 0.7), paste0("g", 1:8))[d$g]
eta <- 0.3 + 0.5 * d$x + (d$fa == "a3") * 0.6 - (d$fb == "b2") * 0.4 + u
d$y <- round(eta + rnorm(n, sd = 0.5), 2)
d$count <- rpois(n, exp(eta)); d$size <- 6; d$hits <- rbinom(n, 6, plogis(eta))
d$w <- rep(c(1, 2, 0, 0.5, 3, 1, 1), length.out = n)

model <- function(id, formula, engine, family = "gaussian", weights = "", trials = "", rows = n, means = list(), newdata = list())
  list(id = id, formula = formula, engine = engine, family = family, weights = weights, trials = trials, rows = rows, means = means, newdata = newdata)
ask <- function(specs, contrasts = "", by = character(), adjust = "", trend = "") list(specs = I(specs), contrasts = contrasts, by = I(by), adjust = adjust, trend = trend)
cell <- list(ask(c("fa", "fb")), ask("fa"), ask("fb"), ask("fa", "pairwise"), ask("fa", "pairwise", by = "fb"), ask("fa", trend = "x"))
every <- lapply(c("tukey", "sidak", "bonferroni", "holm", "fdr", "none"), function(a) ask(c("fa", "fb"), "pairwise", adjust = a))
new <- list(fa = c("a1", "a2", "a2", "a3"), fb = c("b1", "b1", "b2", "b2"), x = c(0, 1, 0.5, -1))
CASES <- list(
  model("lm_cell", "y ~ fa * fb + x", "lm", means = c(cell, every), newdata = new),
  model("lm_cell_weights", "y ~ fa * fb + x", "lm", weights = "w"),  # no means: emmeans averages covariates over rows of weight zero too
  model("lm_cell_twice", "y ~ fb * fa + x + twice + z", "lm", means = cell[1:4],
        newdata = c(new, list(twice = c(1, 3, 2, 0), z = rep(0, 4)))),
  model("lm_twice", "y ~ twice + x + z", "lm", newdata = list(x = c(0, 1), twice = c(1, 2), z = c(0, 0))),
  model("lm_dummies", "y ~ d1 + d2 + d3 + x", "lm", newdata = list(d1 = c(1, 1, 0), d2 = c(0, 1, 1), d3 = c(0, 0, 0), x = c(0, 0, 0))),
  model("lm_dummies_factor", "y ~ d2 + fa + x", "lm"),
  model("lm_const", "y ~ const + x", "lm", newdata = list(const = c(3, 4), x = c(0, 0))),
  model("lm_nested", "y ~ fa + sub + x", "lm", means = list(ask("fa"), ask("sub"))),
  model("lm_no_intercept", "y ~ 0 + fa + d1 + fb", "lm"),
  model("lm_few", "y ~ fa * fb * z + x", "lm", rows = 12),
  model("glm_binomial", "hits ~ fa * fb + x", "glm", "binomial", trials = "size", means = cell, newdata = new),
  model("glm_poisson", "count ~ fa * fb + x + twice", "glm", "poisson", means = cell[1:4]),
  model("lmer_cell", "y ~ fa * fb + x + (1 | g)", "lmer", means = c(cell, every[4:5]), newdata = new),
  model("lmer_slope", "y ~ fa * fb + twice + x + (1 | g)", "lmer"),
  model("glmer_binomial", "hits ~ fa * fb + x + (1 | g)", "glmer", "binomial", trials = "size", means = cell),
  model("glmer_poisson", "count ~ d1 + d2 + d3 + x + (1 | g)", "glmer", "poisson"))

fit_of <- function(case) {
  dat <- d[seq_len(case$rows), ]
  for (v in c("fa", "fb", "g", "sub")) dat[[v]] <- factor(dat[[v]])
  text <- if (nzchar(case$trials)) sub("^hits", "cbind(hits, size - hits)", case$formula) else case$formula
  a <- list(as.formula(text), data = dat)
  if (nzchar(case$weights)) a$weights <- dat[[case$weights]]
  if (case$family != "gaussian") a$family <- case$family
  tight <- list(rhobeg = 2e-3, rhoend = 1e-10, maxfun = 1e5)
  switch(case$engine,
    lm = do.call(lm, a), glm = do.call(glm, c(a, list(control = glm.control(epsilon = 1e-10, maxit = 100)))),
    lmer = suppressMessages(do.call(lmer, c(a, list(REML = FALSE, control = lmerControl("bobyqa", optCtrl = tight, calc.derivs = FALSE))))),
    glmer = suppressMessages(do.call(glmer, c(a, list(control = glmerControl("bobyqa", optCtrl = tight, tolPwrss = 1e-12))))))
}
table_of <- function(m, q) {
  grid <- suppressMessages(ref_grid(m, nesting = NULL))  # no search for nested factors
  s <- suppressMessages(if (nzchar(q$trend)) emtrends(m, q$specs, var = q$trend)
       else if (length(q$by)) emmeans(grid, q$specs, by = q$by) else emmeans(grid, q$specs))
  if (nzchar(q$contrasts)) s <- contrast(s, q$contrasts)
  a <- list(s, infer = TRUE); if (nzchar(q$adjust)) a$adjust <- q$adjust
  t <- as.data.frame(suppressMessages(do.call(summary, a)))
  keep <- vapply(t, is.numeric, NA)
  t <- t[keep]; names(t)[1] <- "estimate"; names(t) <- sub("^asymp\\.LCL|^lower\\.CL", "low", sub("^asymp\\.UCL|^upper\\.CL", "high", names(t)))
  as.list(t[intersect(c("estimate", "SE", "low", "high", "p.value"), names(t))])
}
run <- function(case) {
  m <- suppressWarnings(fit_of(case)); mixed <- case$engine %in% c("lmer", "glmer")
  b <- if (mixed) fixef(m, add.dropped = TRUE) else coef(m)
  v <- as.matrix(vcov(m, complete = FALSE)); se <- setNames(rep(NA_real_, length(b)), names(b)); se[rownames(v)] <- sqrt(diag(v))
  res <- list(id = case$id, formula = case$formula, engine = case$engine, family = case$family, weights = case$weights, trials = case$trials,
    rows = case$rows, names = I(names(b)), coef = I(unname(b)), se = I(unname(se)), logLik = as.numeric(logLik(m)), df = attr(logLik(m), "df"),
    nobs = nobs(m), df_residual = df.residual(m), BIC = BIC(m))
  res$means <- lapply(case$means, function(q) c(q, list(table = lapply(table_of(m, q), I))))
  if (length(case$newdata)) {
    nd <- as.data.frame(case$newdata)
    res$newdata <- lapply(case$newdata, I)
    # A row is predicted where emmeans can estimate it: is.estble() against the null space of X.
    f <- delete.response(terms(m, fixed.only = TRUE)); if (!mixed) f <- delete.response(terms(m))
    dat <- d[seq_len(case$rows), ]; for (v2 in c("fa", "fb")) dat[[v2]] <- factor(dat[[v2]])
    for (v2 in intersect(c("fa", "fb"), names(nd))) nd[[v2]] <- factor(nd[[v2]], levels(dat[[v2]]))
    X <- model.matrix(f, dat); N <- nonest.basis(X); L <- model.matrix(f, nd)
    ok <- apply(L, 1, is.estble, nbasis = N); b0 <- ifelse(is.na(b), 0, b)
    res$link <- I(ifelse(ok, drop(L %*% b0), NA_real_))
  }
  res
}
results <- lapply(CASES, function(case) { message(case$id); run(case) })
versions <- c(list(R = as.character(getRversion())), sapply(c("lme4", "emmeans", "estimability"), function(p) as.character(packageVersion(p)), simplify = FALSE))
lines <- vapply(results, function(r) as.character(toJSON(r, digits = NA, auto_unbox = TRUE, na = "null")), "")
data <- as.character(toJSON(as.list(d), digits = NA))
cat('{"versions": ', as.character(toJSON(versions, auto_unbox = TRUE)), ',\n"data": ', data, ',\n"cases": [\n', paste(lines, collapse = ",\n"), "\n]}\n", sep = "", file = out)
