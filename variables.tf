# ---------------------------------------------------------------------------------------
# Datadog
# ---------------------------------------------------------------------------------------

variable "ddg_api_key" {
  type        = string
  description = "Datadog API key that sends the points. Set this or `ddg_api_key_secret_arn` to apply; destroy needs neither. This key is visible in Terraform's state and in the submitter's environment. To avoid that, use the secret."
  default     = null
  sensitive   = true

  validation {
    condition     = var.ddg_api_key == null || can(regex("^[!-~]+$", var.ddg_api_key))
    error_message = "ddg_api_key must be the key alone: printable ASCII characters, no white space."
  }
}

variable "ddg_app_key" {
  type        = string
  description = "Datadog application key. It is visible in the same places as `ddg_api_key`. Only `ddg-ops check --canary` uses it, to query Datadog: you can export `DATADOG_APP_KEY` instead."
  default     = null
  sensitive   = true

  validation {
    condition     = var.ddg_app_key == null || can(regex("^[!-~]+$", var.ddg_app_key))
    error_message = "ddg_app_key must be the key alone: printable ASCII characters, no white space."
  }
}

variable "ddg_api_key_secret_arn" {
  type        = string
  description = "ARN of a Secrets Manager secret that holds the Datadog API key. Use it instead of `ddg_api_key` and `ddg_app_key`: the key is then neither in the state nor in the environment, and you rotate it without an apply. The secret is the key alone, or JSON such as `{\"api_key\": \"...\"}`."
  default     = null

  validation {
    condition     = var.ddg_api_key_secret_arn == null || can(regex("^arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:.+-[A-Za-z0-9]{6}$", var.ddg_api_key_secret_arn))
    error_message = "ddg_api_key_secret_arn must be the whole ARN with the six characters that Secrets Manager adds at its end, such as arn:aws:secretsmanager:us-east-1:123456789012:secret:datadog-AbCdEf. `aws secretsmanager describe-secret` prints it."
  }
}

variable "ddg_api_key_kms_key_arn" {
  type        = string
  description = "ARN of the KMS key that encrypts the secret. Set it only if that is your own key, not the default aws/secretsmanager."
  default     = null

  validation {
    condition     = var.ddg_api_key_kms_key_arn == null || can(regex("^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+$", var.ddg_api_key_kms_key_arn))
    error_message = "ddg_api_key_kms_key_arn must be the ARN of a key, not of an alias, such as arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab."
  }
}

variable "ddg_site" {
  type        = string
  description = "Datadog site that your API key belongs to, such as datadoghq.eu. It is the address in your browser when you are logged in, without `app.`. With another site no points arrive."
  default     = "datadoghq.com"
  nullable    = false

  validation {
    condition     = contains(["datadoghq.com", "datadoghq.eu", "ddog-gov.com"], var.ddg_site) || can(regex("^([a-z0-9]([a-z0-9-]*[a-z0-9])?\\.)+(datadoghq\\.com|ddog-gov\\.com)$", var.ddg_site)) && !can(regex("^(api|app)\\.", var.ddg_site))
    error_message = "ddg_site must be a Datadog site without https://, api. or app.: datadoghq.com, us3.datadoghq.com, us5.datadoghq.com, datadoghq.eu, ap1.datadoghq.com, ap2.datadoghq.com, uk1.datadoghq.com, ddog-gov.com, us2.ddog-gov.com, or another host under datadoghq.com or ddog-gov.com."
  }
}

variable "max_age_seconds" {
  type        = number
  description = "Maximum age of a timestamp, in seconds. Older files are refused, because Datadog silently drops points that are over an hour old. Raise it, or set 0 for no limit, only if all metrics have Historical Metrics Ingestion turned on."
  default     = 3600
  nullable    = false

  validation {
    condition     = var.max_age_seconds >= 0 && var.max_age_seconds <= 9999999999 && floor(var.max_age_seconds) == var.max_age_seconds
    error_message = "max_age_seconds must be a whole number of seconds from 0 (no limit) to 9999999999. Datadog accepts 3600 by default."
  }
}

variable "constant_tags" {
  type        = list(string)
  description = "Datadog tags for every point of this stack, such as [\"env:prod\", \"team:data\"]. Datadog bills each combination of a metric and its tags as a custom metric."
  default     = []
  nullable    = false

  validation {
    condition     = length(var.constant_tags) <= 99 && alltrue([for tag in var.constant_tags : can(regex("^\\pL[^,\\s]{0,199}$", tag))])
    error_message = "constant_tags must be at most 99 tags such as env:prod. Each starts with a letter and has at most 200 characters, no comma and no white space."
  }
}

# ---------------------------------------------------------------------------------------
# Names and place
# ---------------------------------------------------------------------------------------

variable "name" {
  type        = string
  description = "Prefix of the name of every resource. Each stack in an account and region needs its own prefix. Changing it replaces all resources."
  default     = "ddg-stats"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,22}[a-z0-9]$", var.name))
    error_message = "name must have 3 to 24 characters: lower-case letters, digits and hyphens, no hyphen at either end."
  }
}

variable "aws_region" {
  type        = string
  description = "Region that the stack must be in, such as eu-central-1. It only guards the region, which the AWS provider takes from `AWS_REGION` or your profile: if the two differ, the plan fails."
  default     = null

  validation {
    condition     = var.aws_region == null || can(regex("^[a-z]{2,4}(-[a-z]+)+-[0-9]$", var.aws_region))
    error_message = "aws_region must be the code of a region, such as us-east-1 or eu-central-1."
  }

  # A validation, because a precondition only warns on destroy, which would then forget the stack.
  validation {
    condition     = var.aws_region == null || var.aws_region == data.aws_region.current.id
    error_message = "aws_region is ${coalesce(var.aws_region, "not given")}, but the AWS provider works in ${data.aws_region.current.id}. Set AWS_REGION to the stack's region (in a module call, pass a provider of that region), or correct aws_region."
  }
}

variable "tags" {
  type        = map(string)
  description = "AWS tags for all resources, such as { team = \"data\" }, in addition to the provider's `default_tags`. For tags in Datadog, use `constant_tags`."
  default     = {}
  nullable    = false

  # An empty value is legal in AWS, but the provider would plan the same change for ever.
  validation {
    condition     = alltrue([for key, value in var.tags : can(regex("^[\\pL\\pZ\\pN_.:/=+@-]{1,128}$", key)) && !startswith(lower(key), "aws:") && can(regex("^[\\pL\\pZ\\pN_.:/=+@-]{1,256}$", value))])
    error_message = "tags must have keys of 1 to 128 characters that don't begin with aws:, and values of 1 to 256 characters. Both may have letters, digits, spaces and _.:/=+-@."
  }
}

variable "zip_folder" {
  type        = string
  description = "Folder with the functions' two zips, relative to the folder where Terraform runs. Default: the folder of main.tf."
  default     = null

  validation {
    condition     = var.zip_folder == null || can(regex("\\S", var.zip_folder))
    error_message = "zip_folder must be a folder such as ../build. Leave it out if the zips are beside main.tf."
  }
}

# ---------------------------------------------------------------------------------------
# What a company may require: see docs/settings.md
# ---------------------------------------------------------------------------------------

variable "permissions_boundary_arn" {
  type        = string
  description = "ARN of the IAM policy that is the permissions boundary of the functions' roles. Set it if your account requires one."
  default     = null

  validation {
    condition     = var.permissions_boundary_arn == null || can(regex("^arn:aws[a-z-]*:iam::([0-9]{12}|aws):policy/[!-~]+$", var.permissions_boundary_arn))
    error_message = "permissions_boundary_arn must be the ARN of a policy, such as arn:aws:iam::123456789012:policy/boundary."
  }
}

variable "iam_role_path" {
  type        = string
  description = "IAM path of the functions' roles, such as /teams/data/. Changing it replaces the roles."
  default     = null

  validation {
    condition     = var.iam_role_path == null || can(regex("^/([!-.0-~]{1,510}/)*$", var.iam_role_path)) && try(length(var.iam_role_path), 0) <= 512
    error_message = "iam_role_path must begin and end with a slash, such as /teams/data/, and have at most 512 characters."
  }
}

variable "subnet_ids" {
  type        = list(string)
  description = "IDs of the subnets that the functions run in, if they must run in your VPC. Also set `security_group_ids`. From these subnets the functions must reach S3, SQS and Datadog, through a NAT gateway or endpoints."
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for id in var.subnet_ids : can(regex("^subnet-[0-9a-z]+$", id))])
    error_message = "subnet_ids must be IDs such as subnet-0123456789abcdef0."
  }

  validation {
    condition     = (length(var.subnet_ids) > 0) == (length(var.security_group_ids) > 0)
    error_message = "subnet_ids and security_group_ids need each other: set both or neither."
  }
}

variable "security_group_ids" {
  type        = list(string)
  description = "IDs of the functions' security groups in your VPC. They must allow outgoing HTTPS; nothing comes in."
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for id in var.security_group_ids : can(regex("^sg-[0-9a-z]+$", id))])
    error_message = "security_group_ids must be IDs such as sg-0123456789abcdef0."
  }
}

variable "kms_key_arn" {
  type        = string
  description = "ARN of your own KMS key, which encrypts the queues, the bucket, the alarms' topic and the logs. First add the statements of the output `kms_key_statements` to the key's policy. Default: AWS's own keys encrypt all but the topic."
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:aws[a-z-]*:kms:${data.aws_region.current.id}:[0-9]{12}:key/[A-Za-z0-9-]+$", var.kms_key_arn))
    error_message = "kms_key_arn must be the ARN of a key in the stack's region, not of an alias, such as arn:aws:kms:${data.aws_region.current.id}:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab."
  }
}

variable "architectures" {
  type        = list(string)
  description = "Processor architecture of the functions: [\"arm64\"] or, in a region without it, [\"x86_64\"]. The same zips run on both."
  default     = ["arm64"]
  nullable    = false

  validation {
    condition     = contains(["arm64", "x86_64"], join(" ", var.architectures))
    error_message = "architectures must be [\"arm64\"] or [\"x86_64\"]."
  }
}

# ---------------------------------------------------------------------------------------
# Files
# ---------------------------------------------------------------------------------------

variable "stats_prefix" {
  type        = string
  description = "Folder of the stack's bucket that jobs write to. The folder below it names the job: stats/nightly/1.json belongs to job:nightly. Change it only while no file waits in the queue, because the submitter can't read files under the old prefix any more."
  default     = "stats/"
  nullable    = false

  validation {
    condition     = can(regex("^([A-Za-z0-9._-]+/)+$", var.stats_prefix)) && length(var.stats_prefix) <= 256
    error_message = "stats_prefix must be a folder such as stats/ or jobs/stats/: letters, digits and ._- between slashes, a slash at its end, none at its beginning, at most 256 characters."
  }
}

variable "file_retention_days" {
  type        = number
  description = "Days after which S3 deletes a stats file from the stack's bucket, at least 15. A refused file must be kept longer than its message, which is kept for 14 days."
  default     = 30
  nullable    = false

  validation {
    condition     = var.file_retention_days >= 15 && floor(var.file_retention_days) == var.file_retention_days
    error_message = "file_retention_days must be a whole number of at least 15. A refused file must be kept longer than its message, which is kept for 14 days."
  }
}

variable "force_destroy" {
  type        = bool
  description = "Whether `terraform destroy` deletes the stack's bucket together with the files in it. To keep them, set it to false and apply before you destroy. Destroy then removes everything else, and ends with the error BucketNotEmpty."
  default     = true
  nullable    = false
}

# ---------------------------------------------------------------------------------------
# Jobs and metrics: docs/settings.md has the attributes
# ---------------------------------------------------------------------------------------

# Of any type, because Terraform silently drops unknown attributes of a typed object.
variable "jobs" {
  type        = any
  description = "Settings of jobs, by the name of their folder, such as { nightly = { silent_after_hours = 26 } }. `mapping` is a JMESPath expression that turns the job's own JSON into metrics. Test it with `ddg-ops validate`, because a plan can't check it. `silent_after_hours` adds an alarm that is on while no file of the job has been submitted for that many hours."
  default     = {}
  nullable    = false

  validation {
    condition     = can([for job in values(var.jobs) : keys(job)])
    error_message = "jobs must be a map of folders to attributes, such as { backup = { mapping = \"numbers(@)\" } }."
  }

  validation {
    condition     = alltrue([for job in try(keys(var.jobs), []) : can(regex("^[^/]+$", job))])
    error_message = "jobs must be named by their folder, the first one below the prefix: not empty, no slash."
  }

  validation {
    condition     = length(setsubtract(flatten([for job in try(values(var.jobs), []) : try(keys(job), [])]), ["mapping", "silent_after_hours"])) == 0
    error_message = "jobs has an unknown attribute: ${join(", ", setsubtract(flatten([for job in try(values(var.jobs), []) : try(keys(job), [])]), ["mapping", "silent_after_hours"]))}. A job can have mapping and silent_after_hours."
  }

  validation {
    condition     = alltrue([for job in try(values(var.jobs), []) : try(job.mapping, null) == null || can(regex("\\S", job.mapping))])
    error_message = "jobs must have a JMESPath expression as mapping, such as \"numbers(@)\", or no mapping."
  }

  validation {
    condition     = alltrue([for job in try(values(var.jobs), []) : try(job.silent_after_hours, null) == null || try(job.silent_after_hours >= 1 && job.silent_after_hours <= 167 && floor(job.silent_after_hours) == tonumber(job.silent_after_hours), false)])
    error_message = "jobs must have a whole number from 1 to 167 as silent_after_hours, or none. CloudWatch looks back seven days at most, so a weekly job can't be watched."
  }

  validation {
    condition     = alltrue([for name, job in try({ for name, job in var.jobs : name => job }, {}) : try(job.silent_after_hours, null) == null || can(regex("^[ -~]{1,200}$", name)) && can(regex("\\S", name))])
    error_message = "jobs with silent_after_hours must have a name of at most 200 printable ASCII characters, because CloudWatch uses it as a dimension."
  }
}

variable "metrics" {
  type        = any
  description = "Settings of metrics, by their whole name, such as { \"processed.data\" = { type = \"count\", interval = 86400 } }. `type` is `gauge` (default) or `count`. `interval` is the number of seconds that a count covers. Set the type before the first point, because changing it later spoils the metric's history in Datadog. The other attributes are for `dashboard/`."
  default     = {}
  nullable    = false

  validation {
    condition     = can([for metric in values(var.metrics) : keys(metric)])
    error_message = "metrics must be a map of names to attributes, such as { \"processed.data\" = { type = \"count\", interval = 86400 } }."
  }

  validation {
    condition     = alltrue([for name in try(keys(var.metrics), []) : can(regex("^[A-Za-z][A-Za-z0-9_.]{0,199}$", name)) && !can(regex("__|_\\.|\\._|_$", name))])
    error_message = "metrics must have whole names, including metric_prefix: a letter first, then letters, digits, dots and single _ between letters or digits, at most 200 characters."
  }

  validation {
    condition     = length(setsubtract(flatten([for metric in try(values(var.metrics), []) : try(keys(metric), [])]), ["type", "interval", "unit", "per_unit", "short_name", "description", "monitor"])) == 0
    error_message = "metrics has an unknown attribute: ${join(", ", setsubtract(flatten([for metric in try(values(var.metrics), []) : try(keys(metric), [])]), ["type", "interval", "unit", "per_unit", "short_name", "description", "monitor"]))}. A metric can have type and interval and, for dashboard/, unit, per_unit, short_name, description and monitor."
  }

  validation {
    condition     = alltrue([for metric in try(values(var.metrics), []) : try(metric.type, null) == null || try(contains(["gauge", "count"], metric.type), false)])
    error_message = "metrics must have the type gauge or count. A distribution isn't possible: if a file is delivered twice, Datadog would add its values twice."
  }

  validation {
    condition     = alltrue([for metric in try(values(var.metrics), []) : try(metric.interval, null) == null || try(metric.interval >= 1 && metric.interval <= 31536000 && floor(metric.interval) == tonumber(metric.interval), false)])
    error_message = "metrics must have a whole number of seconds from 1 to 31536000 (a year) as interval, or none."
  }

  validation {
    condition     = alltrue([for metric in try(values(var.metrics), []) : try(metric.interval, null) == null || try(metric.type, null) == "count"])
    error_message = "metrics must have type = \"count\" if they have an interval, which is the number of seconds that a count covers."
  }
}

variable "metric_prefix" {
  type        = string
  description = "Prefix that the submitter adds to every metric's name, such as `etl.`, unless the name begins with `ddg.`. The name in a file may then begin with a digit, because only the whole name must follow Datadog's rules."
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^([A-Za-z][A-Za-z0-9_.]{0,198})?$", var.metric_prefix)) && !can(regex("__|_\\.|\\._", var.metric_prefix))
    error_message = "metric_prefix must be empty or the beginning of a metric's name, such as etl.: a letter first, then letters, digits, dots and single _, at most 199 characters."
  }
}

# ---------------------------------------------------------------------------------------
# Existing buckets: docs/buckets.md
# ---------------------------------------------------------------------------------------

variable "create_bucket" {
  type        = bool
  description = "Whether the stack has its own bucket, with the generator or the heartbeat. Without it, the stack takes files only from `buckets`. Turning it off deletes the bucket and its files, as `destroy` does."
  default     = true
  nullable    = false

  validation {
    condition     = var.create_bucket || length(var.buckets) > 0
    error_message = "create_bucket = false leaves no bucket to take files from. Add at least one to buckets."
  }
}

# Maps of strings, because Terraform silently drops unknown attributes of a typed object.
variable "buckets" {
  type        = map(map(string))
  description = "Buckets of your own to take files from, by name, such as { acme-data = { prefix = \"etl/stats/\" } }. [buckets.md](buckets.md) explains the attributes: `prefix`, `notify`, `topic_arn`, `account_id`, `kms_key_arn`. The stack doesn't change these buckets: after the apply, follow the output `bucket_steps`."
  default     = {}
  nullable    = false

  validation {
    condition     = alltrue([for name in keys(var.buckets) : can(regex("^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", name))])
    error_message = "buckets must have names such as acme-data: 3 to 63 characters, no s3://, no ARN, no folder."
  }

  validation {
    condition     = !contains(keys(var.buckets), local.bucket_name)
    error_message = "buckets contains the stack's own bucket, ${local.bucket_name}. Remove it: the stack takes files from it anyway."
  }

  validation {
    condition     = length(setsubtract(flatten([for given in var.buckets : try(keys(given), [])]), ["prefix", "notify", "topic_arn", "account_id", "kms_key_arn"])) == 0
    error_message = "buckets has an unknown attribute: ${join(", ", setsubtract(flatten([for given in var.buckets : try(keys(given), [])]), ["prefix", "notify", "topic_arn", "account_id", "kms_key_arn"]))}. A bucket can have prefix, notify, topic_arn, account_id and kms_key_arn."
  }

  validation {
    condition     = alltrue([for given in var.buckets : try(given.prefix, null) == null || can(regex("^(|[^*?$%\\x60\\x27\\x22\\x5C\\pC]{0,511}/)$", given.prefix))])
    error_message = "buckets must have a prefix that ends in a slash, such as etl/stats/, or is empty for the whole bucket: at most 512 characters, no quotes, no backslash, none of *?$%."
  }

  validation {
    condition     = alltrue([for given in var.buckets : contains(["eventbridge", "sns", "s3"], coalesce(try(given.notify, null), "s3"))])
    error_message = "buckets must have eventbridge, sns or s3 as notify, or none. Without notify it is sns if there is a topic_arn, otherwise eventbridge."
  }

  validation {
    condition     = alltrue([for given in var.buckets : (try(given.topic_arn, null) == null) == (coalesce(try(given.notify, null), try(given.topic_arn, null) == null ? "s3" : "sns") != "sns")])
    error_message = "buckets must have a topic_arn if notify is \"sns\", and no topic_arn otherwise."
  }

  validation {
    condition     = alltrue([for given in var.buckets : try(given.topic_arn, null) == null || can(regex("^arn:aws[a-z-]*:sns:${data.aws_region.current.id}:[0-9]{12}:[A-Za-z0-9_-]{1,256}$", given.topic_arn))])
    error_message = "buckets must have the ARN of a topic in the stack's region as topic_arn, such as arn:aws:sns:${data.aws_region.current.id}:123456789012:uploads. It can't be a FIFO topic."
  }

  validation {
    condition     = alltrue([for given in var.buckets : try(given.account_id, null) == null || can(regex("^[0-9]{12}$", given.account_id))])
    error_message = "buckets must have the owner's 12 digits as account_id, if the owner is another account. Write it in quotes, because it may begin with 0."
  }

  validation {
    condition     = alltrue([for given in var.buckets : try(given.kms_key_arn, null) == null || can(regex("^arn:aws[a-z-]*:kms:${data.aws_region.current.id}:[0-9]{12}:key/[A-Za-z0-9-]+$", given.kms_key_arn))])
    error_message = "buckets must have the ARN of a key in the stack's region as kms_key_arn, not of an alias, such as arn:aws:kms:${data.aws_region.current.id}:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab."
  }
}

# ---------------------------------------------------------------------------------------
# Generator
# ---------------------------------------------------------------------------------------

variable "mock_datasource_enabled" {
  type        = bool
  description = "Whether the generator writes sample files into the stack's own bucket. Turn it off once your own jobs write files."
  default     = true
  nullable    = false
}

variable "mock_interval_minutes" {
  type        = number
  description = "Minutes between two sample files of the generator, from 1 to 1440 (a day)."
  default     = 1
  nullable    = false

  validation {
    condition     = var.mock_interval_minutes >= 1 && var.mock_interval_minutes <= 1440 && floor(var.mock_interval_minutes) == var.mock_interval_minutes
    error_message = "mock_interval_minutes must be a whole number of minutes from 1 to 1440."
  }
}

variable "heartbeat_schedule" {
  type        = string
  description = "How often the heartbeat writes a file into the stack's own bucket while the generator is off, or null for never. If three of its files are missing, the alarm nothing-submitted is on. Without a heartbeat or generator, only the alarms of watched `jobs` show that the pipeline has stopped."
  default     = "rate(15 minutes)"

  # The alarm needs an interval, which a cron expression doesn't have.
  validation {
    condition     = var.heartbeat_schedule == null || can(regex("^rate\\((1 (minute|hour|day)|([2-9]|[1-9][0-9]{1,2}|1[0-4][0-9]{2}) minutes|([2-9]|1[0-9]|2[0-4]) hours)\\)$", var.heartbeat_schedule))
    error_message = "heartbeat_schedule must be a rate from a minute to a day, such as rate(15 minutes) or rate(1 hour), or null for none."
  }
}

# Without this declaration Terraform would only warn, and use the default interval.
variable "mock_schedule" {
  type        = string
  description = "Removed in 2.0: set `mock_interval_minutes` instead."
  default     = null

  validation {
    condition     = var.mock_schedule == null
    error_message = "mock_schedule was removed. Set mock_interval_minutes instead: 5 for rate(5 minutes)."
  }
}

# ---------------------------------------------------------------------------------------
# Submitter: docs/scaling.md says when to raise these
# ---------------------------------------------------------------------------------------

variable "batch_size" {
  type        = number
  description = "Maximum number of files per invocation of the submitter. Over 10, also set `batch_window`."
  default     = 10
  nullable    = false

  validation {
    condition     = var.batch_size >= 1 && var.batch_size <= 10000 && floor(var.batch_size) == var.batch_size
    error_message = "batch_size must be a whole number from 1 to 10000."
  }

  validation {
    condition     = var.batch_size <= 10 || var.batch_window >= 1
    error_message = "batch_size over 10 needs a batch_window of at least 1 second. AWS requires it."
  }
}

variable "batch_window" {
  type        = number
  description = "Maximum number of seconds that AWS waits for a batch to fill. With 0 a file is submitted at once. With any other value a file may wait up to 20 seconds on a quiet queue."
  default     = 0
  nullable    = false

  validation {
    condition     = var.batch_window >= 0 && var.batch_window <= 300 && floor(var.batch_window) == var.batch_window
    error_message = "batch_window must be a whole number of seconds from 0 to 300."
  }
}

variable "maximum_concurrency" {
  type        = number
  description = "Maximum concurrent invocations of the submitter. More files wait in the queue. Keep it below your account's limit for all functions, which is 10 in a new account."
  default     = 5
  nullable    = false

  validation {
    condition     = var.maximum_concurrency >= 2 && var.maximum_concurrency <= 1000 && floor(var.maximum_concurrency) == var.maximum_concurrency
    error_message = "maximum_concurrency must be a whole number from 2 to 1000."
  }
}

variable "memory_size" {
  type        = number
  description = "Memory of the submitter in MiB. Lambda gives it more CPU in proportion."
  default     = 512
  nullable    = false

  validation {
    condition     = var.memory_size >= 128 && var.memory_size <= 10240 && floor(var.memory_size) == var.memory_size
    error_message = "memory_size must be a whole number of MiB from 128 to 10240."
  }
}

# ---------------------------------------------------------------------------------------
# Logs and alarms
# ---------------------------------------------------------------------------------------

variable "log_retention_days" {
  type        = number
  description = "Days that CloudWatch keeps the functions' logs."
  default     = 30
  nullable    = false

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "log_retention_days must be a number that CloudWatch accepts: 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288 or 3653."
  }
}

variable "log_files" {
  type        = bool
  description = "Whether the submitter logs the address of each file that it submits. `ddg-ops where` needs these log lines to find a submitted file."
  default     = true
  nullable    = false
}

variable "alarm_email" {
  type        = string
  description = "Email address that gets the alarms, once you confirm AWS's email. Without it, alarms only show in CloudWatch, and go to subscribers of the output `alarm_topic_arn`."
  default     = null

  validation {
    condition     = var.alarm_email == null || can(regex("^[^@\\s]+@[^@\\s]+\\.[^@\\s]+$", var.alarm_email))
    error_message = "alarm_email must be one address, such as oncall@example.com."
  }
}
